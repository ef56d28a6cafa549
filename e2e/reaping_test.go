//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// reaperTimes make the reaper of the installed policy as quick as tests need it, and keep what it reaps.
var reaperTimes = strings.NewReplacer(
	"\n  interval: 1m ", "\n  interval: 1s ",
	"\n    idleAfter: 1h ", "\n    idleAfter: 10s ",
	"\n    retain: 0s ", "\n    retain: 72h ",
)

// hurryReaper changes the policy among the objects to install.
func hurryReaper(objects []*unstructured.Unstructured) error {
	for _, o := range objects {
		if o.GetKind() != "ConfigMap" || o.GetName() != "lifecycle-policy" {
			continue
		}
		policy, _, err := unstructured.NestedString(o.Object, "data", "policy.yaml")
		if err != nil {
			return err
		}
		changed := reaperTimes.Replace(policy)
		if strings.Count(changed, ": 1s ") != 1 || !strings.Contains(changed, "idleAfter: 10s") || !strings.Contains(changed, "retain: 72h") {
			return errors.New("the policy does not say what the reaper's times are")
		}
		return unstructured.SetNestedField(o.Object, changed, "data", "policy.yaml")
	}
	return errors.New("the overlay has no policy")
}

// role is a role agent in a namespace of its own.
type role struct {
	t    *testing.T
	name string
}

// newRole makes a role agent's namespace, as its template does, with an agent that has a claim.
func newRole(t *testing.T, name string, change func(*corev1.Namespace)) *role {
	t.Helper()
	r := &role{t, name}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}, Labels: map[string]string{
		lifecycle.LabelAgentRole: "tester", lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: "e2e",
	}}}
	change(ns)
	ctx := t.Context()
	if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := client.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { keepEvidence(t) })
	_, err := client.RbacV1().RoleBindings(name).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: systemNamespace, Name: serverName}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().PersistentVolumeClaims(name).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "worker-data", Labels: map[string]string{lifecycle.LabelDeployment: "worker"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse("16Mi"),
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	worker := newAgent("worker")
	worker.Namespace = name
	worker.Spec.Template.Spec.Containers[0].Image = agentImage
	withClaim(worker)
	if _, err := client.AppsV1().Deployments(name).Create(ctx, worker, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return r
}

// running waits for the role's Pod, and returns its name.
func (r *role) running() string {
	r.t.Helper()
	name := ""
	eventually(r.t, lifeTimeout, func(ctx context.Context) error {
		pods, err := client.CoreV1().Pods(r.name).List(ctx, metav1.ListOptions{})
		if err != nil || len(pods.Items) != 1 || !runs(&pods.Items[0]) || pods.Items[0].DeletionTimestamp != nil {
			return fmt.Errorf("the agent does not run: %w", err)
		}
		name = pods.Items[0].Name
		return nil
	})
	return name
}

func (r *role) scale(replicas int32) {
	r.t.Helper()
	patch := fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, replicas)
	_, err := client.AppsV1().Deployments(r.name).Patch(r.t.Context(), "worker", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
}

// call asks the role's agent for something. Its Pod may have just begun.
func (r *role) call(method, path string, params ...string) string {
	r.t.Helper()
	pod, answer := r.running(), ""
	eventually(r.t, clusterTimeout, func(ctx context.Context) error {
		request := client.CoreV1().RESTClient().Verb(method).Namespace(r.name).Resource("pods").Name(pod + ":8080").SubResource("proxy").Suffix(path)
		for i := 0; i+1 < len(params); i += 2 {
			request = request.Param(params[i], params[i+1])
		}
		body, err := request.DoRaw(ctx)
		answer = string(body)
		return err
	})
	return answer
}

// deletions notes when the claim and the namespace were first seen to be deleted.
func (r *role) deletions(ctx context.Context) (claimGone, namespaceDeleted time.Time) {
	for ctx.Err() == nil && namespaceDeleted.IsZero() {
		ns, err := client.CoreV1().Namespaces().Get(ctx, r.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && ns.DeletionTimestamp != nil {
			namespaceDeleted = time.Now()
		}
		_, err = client.CoreV1().PersistentVolumeClaims(r.name).Get(ctx, "worker-data", metav1.GetOptions{})
		if apierrors.IsNotFound(err) && claimGone.IsZero() {
			claimGone = time.Now()
			if !namespaceDeleted.IsZero() {
				claimGone = namespaceDeleted.Add(time.Second) // it was not seen to go first
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return claimGone, namespaceDeleted
}

// TestReaping: a role agent's namespace goes quiet and is reaped, its claim before the namespace; one that somebody protects, and
// look-alikes of other owners, stay; and an operator brings the namespace back, with the agent's files.
func TestReaping(t *testing.T) {
	t.Parallel()
	quiet := newRole(t, "agent-e2e-quiet", func(*corev1.Namespace) {})
	others := map[string]*role{
		"protected": newRole(t, "agent-e2e-kept", func(ns *corev1.Namespace) { ns.Annotations[lifecycle.AnnotationDoNotReap] = "true" }),
		"foreign":   newRole(t, "agent-e2e-foreign", func(ns *corev1.Namespace) { ns.Labels[lifecycle.LabelOrg] = "somebody-else" }),
		"unlabelled": newRole(t, "agent-e2e-plain", func(ns *corev1.Namespace) {
			delete(ns.Labels, lifecycle.LabelAgentRole)
		}),
	}
	quiet.call("POST", "data", "content", "work of weeks")
	for _, r := range others {
		r.running()
		r.scale(0)
	}
	time.Sleep(15 * time.Second) // longer than idleAfter: what runs is not idle, however long nobody talks to it
	quiet.running()
	before, err := client.CoreV1().Namespaces().Get(t.Context(), quiet.name, metav1.GetOptions{})
	if err != nil || before.Annotations[lifecycle.AnnotationReaping] != "" || before.Annotations[lifecycle.AnnotationIdleSince] != "" {
		t.Fatalf("a namespace with a Pod that runs: %+v, %v", before.Annotations, err)
	}
	quiet.scale(0)

	ctx, cancel := context.WithTimeout(t.Context(), lifeTimeout)
	defer cancel()
	claimGone, namespaceDeleted := quiet.deletions(ctx)
	if namespaceDeleted.IsZero() || claimGone.IsZero() || claimGone.After(namespaceDeleted) {
		t.Fatalf("the claim went at %s, the namespace was deleted at %s: want the claim first", claimGone, namespaceDeleted)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, quiet.name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the namespace is there: %w", err)
		}
		return nil
	})
	for why, r := range others {
		ns, err := client.CoreV1().Namespaces().Get(t.Context(), r.name, metav1.GetOptions{})
		if err != nil || ns.DeletionTimestamp != nil || ns.Annotations[lifecycle.AnnotationReaping] != "" {
			t.Errorf("%s, which is %s, should have stayed: %+v, %v", r.name, why, ns, err)
		}
		if _, err := client.AppsV1().Deployments(r.name).Get(t.Context(), "worker", metav1.GetOptions{}); err != nil {
			t.Errorf("the agent of %s: %v", r.name, err)
		}
	}

	operator := kubectlAgents(t)
	if code, said := operator("restore"); code != 0 || !strings.Contains(said, quiet.name) {
		t.Fatalf("the list of archives: exit code %d: %s", code, said)
	}
	code, said := operator("restore", quiet.name)
	if code != 0 {
		t.Fatalf("restore: exit code %d: %s", code, said)
	}
	t.Log(said)
	quiet.scale(1)
	if got := quiet.call("GET", "data"); got != "work of weeks" {
		t.Errorf("after the restore the agent finds %q", got)
	}
	if d, err := client.AppsV1().Deployments(quiet.name).Get(t.Context(), "worker", metav1.GetOptions{}); err != nil || !hasSidecar(d) {
		t.Errorf("the agent that came back: %+v, %v", d, err)
	}
}

func hasSidecar(d *appsv1.Deployment) bool {
	return containerNamed(d.Spec.Template.Spec, lifecycle.SidecarContainer) != nil
}
