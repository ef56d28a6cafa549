package manifests

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// step is a request and what of it reaches the server.
type step struct {
	name string
	do   func(context.Context, kubernetes.Interface) error
	want []string
}

var (
	mutateAndValidate = []string{"mutate UPDATE deployments", "validate UPDATE deployments"}
	nothing           []string
)

func testMatchConditions(t *testing.T, cp *controlplane.ControlPlane) {
	client := kubernetes.NewForConfigOrDie(cp.Config)
	for _, name := range []string{"agent-ceo", "agents", "not-agent-ceo"} {
		createNamespace(t, client, name)
	}
	r := newRecorder(t)
	r.register(t, client, render(t, "overlays/dev"))

	prepareDeletions(t, client)
	r.take()
	run := func(name string, client kubernetes.Interface, steps []step) {
		t.Run(name, func(t *testing.T) {
			for _, s := range steps {
				if err := s.do(t.Context(), client); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if diff := cmp.Diff(s.want, r.take()); diff != "" {
					t.Errorf("%s (-want +got):\n%s", s.name, diff)
				}
			}
		})
	}
	run("namespaces", client, namespaceSteps())
	run("deployment", client, deploymentSteps())
	run("pod", client, podSteps())
	run("other kinds", client, kindSteps())
	run("claim", client, claimSteps())
	run("Service", client, serviceSteps("a-person", nothing))
	run("deletions by a person", client, deletionSteps(true, nothing, nothing, nothing))
	reaper := impersonate(cp, controlplane.ServiceAccount("dexorder-system", "lifecycle-reaper"))
	mark(t, client, "agent-ceo", markedAt)
	r.take()
	run("deletions by the reaper", reaper, deletionSteps(false, nothing, nothing, nothing))
	unmark(t, client, "agent-ceo")
	r.take()
	collection := []string{"validate DELETE deployments", "validate DELETE deployments"}
	named := []string{"validate DELETE deployments", "validate DELETE persistentvolumeclaims"}
	agent := impersonate(cp, boundTo(controlplane.ServiceAccount("agent-ceo", "ceo"), "one-6d4b75cb6d-x2v9q"))
	run("deletions by an agent", agent, deletionSteps(false, nil, named, nothing))
	gateway := impersonate(cp, controlplane.ServiceAccount("dexorder-system", "gateway"))
	run("deletions by the gateway", gateway, deletionSteps(true, collection, named, []string{"validate DELETE pods", "validate DELETE services"}))
	run("Service by the gateway", gateway, serviceSteps("the-gateway", []string{"validate CREATE services", "validate UPDATE services"}))

	testStampConditions(cp, run)
	run("policy", client, policySteps())

	owned := newDeployment("owned")
	owned.OwnerReferences = newOwners()
	if _, err := client.AppsV1().Deployments("dexorder-agents").Create(t.Context(), owned, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.take()
	for _, controller := range []string{"generic-garbage-collector", "namespace-controller", "pvc-protection-controller"} {
		account := controlplane.ServiceAccount("kube-system", controller)
		run("owner by "+controller, impersonate(cp, account), ownerSteps(nothing))
	}
	stranger := controlplane.ServiceAccount("dexorder-agents", "generic-garbage-collector")
	run("owner by a stranger", impersonate(cp, stranger), ownerSteps(mutateAndValidate))
}

// impersonate is somebody's access with every right, so that a test is about admission and not about RBAC.
func impersonate(cp *controlplane.ControlPlane, user rest.ImpersonationConfig) kubernetes.Interface {
	user.Groups = append(user.Groups, "system:masters")
	return kubernetes.NewForConfigOrDie(cp.Impersonate(user))
}

func namespaceSteps() []step {
	create := func(namespace string, want []string) step {
		return step{"create in " + namespace, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().Deployments(namespace).Create(ctx, newDeployment("somewhere"), dryRunCreate)
			return err
		}, want}
	}
	both := []string{"mutate CREATE deployments", "validate CREATE deployments"}
	return []step{
		create("dexorder-agents", both),
		create("agent-ceo", both),
		create("agents", nothing),
		create("not-agent-ceo", nothing),
		create("dexorder-system", nothing),
		create("kube-system", nothing),
		create("default", nothing),
	}
}

func deploymentSteps() []step {
	const name = "conditions"
	update := func(what string, change func(*appsv1.Deployment), want []string) step {
		return step{what, func(ctx context.Context, c kubernetes.Interface) error {
			return updateDeployment(ctx, c, name, change)
		}, want}
	}
	label := func(key, value string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { metav1.SetMetaDataLabel(&d.ObjectMeta, key, value) }
	}
	finalizers := func(finalizers ...string) func(*appsv1.Deployment) {
		return func(d *appsv1.Deployment) { d.Finalizers = finalizers }
	}
	return []step{
		{"create", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().Deployments("dexorder-agents").Create(ctx, newDeployment(name), metav1.CreateOptions{})
			return err
		}, []string{"mutate CREATE deployments", "validate CREATE deployments"}},
		update("put as it is", func(*appsv1.Deployment) {}, nothing),
		update("first label of somebody else's", label("team", "blue"), nothing),
		update("annotation", func(d *appsv1.Deployment) {
			metav1.SetMetaDataAnnotation(&d.ObjectMeta, "kubernetes.io/change-cause", "none")
		}, nothing),
		update("template", func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
		}, mutateAndValidate),
		update("strategy", func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
		}, mutateAndValidate),
		update("user type", label(lifecycle.LabelUserType, "paid"), mutateAndValidate),
		update("deployment label", label(lifecycle.LabelDeployment, name), mutateAndValidate),
		update("all labels off", func(d *appsv1.Deployment) { d.Labels = nil }, mutateAndValidate),
		update("finalizers added", finalizers("example.com/one", "example.com/two"), mutateAndValidate),
		update("finalizer removed", finalizers("example.com/two"), nothing),
		update("finalizer exchanged", finalizers("example.com/three"), mutateAndValidate),
		update("last finalizer removed", finalizers(), nothing),
		update("owner added", func(d *appsv1.Deployment) { d.OwnerReferences = newOwners() }, mutateAndValidate),
		update("owner removed", func(d *appsv1.Deployment) { d.OwnerReferences = nil }, mutateAndValidate),
		{"scale to none", scaleDeployment(name, 0), []string{"validate UPDATE deployments/scale"}},
		{"scale as it is", scaleDeployment(name, 0), nothing},
		{"scale to one", scaleDeployment(name, 1), []string{"validate UPDATE deployments/scale"}},
		{"status", func(ctx context.Context, c kubernetes.Interface) error {
			d, err := c.AppsV1().Deployments("dexorder-agents").Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			d.Status.Replicas = 1
			_, err = c.AppsV1().Deployments("dexorder-agents").UpdateStatus(ctx, d, metav1.UpdateOptions{})
			return err
		}, nothing},
		update("held by a finalizer", finalizers("example.com/one"), mutateAndValidate),
		{"delete", func(ctx context.Context, c kubernetes.Interface) error {
			return c.AppsV1().Deployments("dexorder-agents").Delete(ctx, name, metav1.DeleteOptions{})
		}, nothing},
		update("let go", finalizers(), nothing),
	}
}

func podSteps() []step {
	const name = "conditions"
	update := func(what string, change func(*corev1.Pod), want []string) step {
		return step{what, func(ctx context.Context, c kubernetes.Interface) error {
			return updatePod(ctx, c, name, "", change)
		}, want}
	}
	return []step{
		{"create", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().Pods("dexorder-agents").Create(ctx, newPod(name), metav1.CreateOptions{})
			return err
		}, []string{"validate CREATE pods"}},
		update("label", func(p *corev1.Pod) { metav1.SetMetaDataLabel(&p.ObjectMeta, "team", "blue") }, nothing),
		update("our label", func(p *corev1.Pod) {
			metav1.SetMetaDataLabel(&p.ObjectMeta, lifecycle.LabelDeployment, "other")
		}, []string{"validate UPDATE pods"}),
		update("image", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2" },
			[]string{"validate UPDATE pods"}),
		{"resize", func(ctx context.Context, c kubernetes.Interface) error {
			return updatePod(ctx, c, name, "resize", func(p *corev1.Pod) {
				p.Spec.Containers[0].Resources.Requests[corev1.ResourceCPU] = resource.MustParse("200m")
			})
		}, []string{"validate UPDATE pods/resize"}},
		{"debug container", func(ctx context.Context, c kubernetes.Interface) error {
			return updatePod(ctx, c, name, "ephemeralcontainers", func(p *corev1.Pod) {
				debug := newContainer("debug")
				p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
					EphemeralContainerCommon: corev1.EphemeralContainerCommon{
						Name: debug.Name, Image: debug.Image, SecurityContext: debug.SecurityContext,
					},
				})
			})
		}, []string{"validate UPDATE pods/ephemeralcontainers"}},
		{"status", func(ctx context.Context, c kubernetes.Interface) error {
			return updatePod(ctx, c, name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending })
		}, nothing},
		{"delete", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Pods("dexorder-agents").Delete(ctx, name, metav1.DeleteOptions{})
		}, nothing},
	}
}

func kindSteps() []step {
	const namespace, name = "agent-ceo", "conditions"
	create := metav1.CreateOptions{}
	scaled := &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       autoscalingv1.ScaleSpec{Replicas: 2},
	}
	put := metav1.UpdateOptions{}
	return []step{
		{"ReplicaSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().ReplicaSets(namespace).Create(ctx, newReplicaSet(name), create)
			return err
		}, []string{"validate CREATE replicasets"}},
		{"ReplicaSet's scale", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().ReplicaSets(namespace).UpdateScale(ctx, name, scaled, put)
			return err
		}, []string{"validate UPDATE replicasets/scale"}},
		{"StatefulSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().StatefulSets(namespace).Create(ctx, newStatefulSet(name), create)
			return err
		}, []string{"validate CREATE statefulsets"}},
		{"StatefulSet's scale", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().StatefulSets(namespace).UpdateScale(ctx, name, scaled, put)
			return err
		}, []string{"validate UPDATE statefulsets/scale"}},
		{"DaemonSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().DaemonSets(namespace).Create(ctx, newDaemonSet(name), create)
			return err
		}, []string{"validate CREATE daemonsets"}},
		{"ReplicationController", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ReplicationControllers(namespace).Create(ctx, newReplicationController(name), create)
			return err
		}, []string{"validate CREATE replicationcontrollers"}},
		{"ReplicationController's scale", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ReplicationControllers(namespace).UpdateScale(ctx, name, scaled, put)
			return err
		}, []string{"validate UPDATE replicationcontrollers/scale"}},
		{"Job", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.BatchV1().Jobs(namespace).Create(ctx, newJob(name), create)
			return err
		}, []string{"validate CREATE jobs"}},
		{"CronJob", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.BatchV1().CronJobs(namespace).Create(ctx, newCronJob(name), create)
			return err
		}, []string{"validate CREATE cronjobs"}},
		{"lease", func(ctx context.Context, c kubernetes.Interface) error {
			lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
			_, err := c.CoordinationV1().Leases(namespace).Create(ctx, lease, create)
			return err
		}, nothing},
	}
}

// claimSteps are what is done to a claim, by people and by the cluster's own controllers.
func claimSteps() []step {
	const namespace, name = "agent-ceo", "conditions"
	judged := []string{"validate UPDATE persistentvolumeclaims"}
	update := func(what string, change func(*corev1.PersistentVolumeClaim), want []string) step {
		return step{what, func(ctx context.Context, c kubernetes.Interface) error {
			claims := c.CoreV1().PersistentVolumeClaims(namespace)
			claim, err := claims.Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			change(claim)
			_, err = claims.Update(ctx, claim, metav1.UpdateOptions{})
			return err
		}, want}
	}
	finalizers := func(finalizers ...string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) { c.Finalizers = finalizers }
	}
	return []step{
		{"create", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, newClaim(name, nil), metav1.CreateOptions{})
			return err
		}, []string{"validate CREATE persistentvolumeclaims"}},
		update("volume bound", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.VolumeName = "pv"
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, "pv.kubernetes.io/bind-completed", "yes")
		}, nothing),
		{"status", func(ctx context.Context, c kubernetes.Interface) error {
			claim, err := c.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			claim.Status.Phase = corev1.ClaimBound
			_, err = c.CoreV1().PersistentVolumeClaims(namespace).UpdateStatus(ctx, claim, metav1.UpdateOptions{})
			return err
		}, nothing},
		update("protection removed", finalizers(), nothing),
		update("protected", finalizers("kubernetes.io/pvc-protection"), nothing),
		update("finalizer added", finalizers("kubernetes.io/pvc-protection", "example.com/one"), judged),
		update("finalizers removed", finalizers(), nothing),
		update("user type", func(c *corev1.PersistentVolumeClaim) {
			metav1.SetMetaDataLabel(&c.ObjectMeta, lifecycle.LabelUserType, "paid")
		}, judged),
		update("deployment label", func(c *corev1.PersistentVolumeClaim) {
			metav1.SetMetaDataLabel(&c.ObjectMeta, lifecycle.LabelDeployment, "other")
		}, judged),
		update("owner added", func(c *corev1.PersistentVolumeClaim) { c.OwnerReferences = newOwners() }, judged),
		update("owner removed", func(c *corev1.PersistentVolumeClaim) { c.OwnerReferences = nil }, judged),
	}
}

// serviceSteps make a Service, give it an owner, and change what nobody judges.
func serviceSteps(name string, want []string) []step {
	return []step{{"Service", func(ctx context.Context, c kubernetes.Interface) error {
		services := c.CoreV1().Services("agent-ceo")
		service, err := services.Create(ctx, newService(name), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		service.OwnerReferences = newOwners()
		if service, err = services.Update(ctx, service, metav1.UpdateOptions{}); err != nil {
			return err
		}
		service.Spec.Ports[0].Port++
		_, err = services.Update(ctx, service, metav1.UpdateOptions{})
		return err
	}, want}}
}

// deletionSteps delete, in dry runs so that all find everything in place. Agents and the reaper may not delete collections: admission
// policies then refuse before the webhook is called.
func deletionSteps(mayCollect bool, collection, named, others []string) []step {
	const namespace = "agent-ceo"
	options := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	steps := []step{
		{"Deployment and claim", func(ctx context.Context, c kubernetes.Interface) error {
			return errors.Join(c.AppsV1().Deployments(namespace).Delete(ctx, "one", options),
				c.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, "one", options))
		}, named},
		{"Pod and Service", func(ctx context.Context, c kubernetes.Interface) error {
			return errors.Join(c.CoreV1().Pods(namespace).Delete(ctx, "one", options),
				c.CoreV1().Services(namespace).Delete(ctx, "one", options))
		}, others},
	}
	if !mayCollect {
		return steps
	}
	return append(steps, step{"two Deployments at once", func(ctx context.Context, c kubernetes.Interface) error {
		return c.AppsV1().Deployments(namespace).DeleteCollection(ctx, options, metav1.ListOptions{})
	}, collection})
}

// prepareDeletions creates what deletionSteps delete.
func prepareDeletions(t *testing.T, c kubernetes.Interface) {
	t.Helper()
	const namespace = "agent-ceo"
	ctx, create := t.Context(), metav1.CreateOptions{}
	_, one := c.AppsV1().Deployments(namespace).Create(ctx, newDeployment("one"), create)
	_, two := c.AppsV1().Deployments(namespace).Create(ctx, newDeployment("two"), create)
	_, claim := c.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, newClaim("one", map[string]string{lifecycle.LabelDeployment: "one"}), create)
	_, pod := c.CoreV1().Pods(namespace).Create(ctx, newPod("one"), create)
	_, service := c.CoreV1().Services(namespace).Create(ctx, newService("one"), create)
	if err := errors.Join(one, two, claim, pod, service); err != nil {
		t.Fatal(err)
	}
}

// ownerSteps touch an owner reference, as the garbage collector does before a foreground deletion can finish.
func ownerSteps(want []string) []step {
	return []step{{"owner reference", func(ctx context.Context, c kubernetes.Interface) error {
		return updateDeployment(ctx, c, "owned", func(d *appsv1.Deployment) {
			block := d.OwnerReferences[0].BlockOwnerDeletion
			*block = !*block
		})
	}, want}}
}

func newOwners() []metav1.OwnerReference {
	return []metav1.OwnerReference{{
		APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: "b5f7a6a1-2b47-44f5-9d0b-2f6e4f3c0001",
		BlockOwnerDeletion: new(true),
	}}
}

func updateDeployment(ctx context.Context, c kubernetes.Interface, name string, change func(*appsv1.Deployment)) error {
	deployments := c.AppsV1().Deployments("dexorder-agents")
	deployment, err := deployments.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	change(deployment)
	_, err = deployments.Update(ctx, deployment, metav1.UpdateOptions{})
	return err
}

func scaleDeployment(name string, replicas int32) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		scale := &autoscalingv1.Scale{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "dexorder-agents"},
			Spec:       autoscalingv1.ScaleSpec{Replicas: replicas},
		}
		_, err := c.AppsV1().Deployments("dexorder-agents").UpdateScale(ctx, name, scale, metav1.UpdateOptions{})
		return err
	}
}

func updatePod(ctx context.Context, c kubernetes.Interface, name, subresource string, change func(*corev1.Pod)) error {
	pods := c.CoreV1().Pods("dexorder-agents")
	pod, err := pods.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	change(pod)
	switch subresource {
	case "resize":
		_, err = pods.UpdateResize(ctx, name, pod, metav1.UpdateOptions{})
	case "ephemeralcontainers":
		_, err = pods.UpdateEphemeralContainers(ctx, name, pod, metav1.UpdateOptions{})
	case "status":
		_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	default:
		_, err = pods.Update(ctx, pod, metav1.UpdateOptions{})
	}
	return err
}
