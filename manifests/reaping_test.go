package manifests

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// attempt is a request and how it is refused.
type attempt struct {
	name    string
	do      func(context.Context, kubernetes.Interface) error
	refusal string // a part of the message; empty: allowed
}

func tryAll(t *testing.T, client kubernetes.Interface, attempts []attempt) {
	t.Helper()
	for _, a := range attempts {
		t.Run(a.name, func(t *testing.T) {
			err := a.do(t.Context(), client)
			switch {
			case a.refusal == "" && err != nil:
				t.Errorf("refused: %v", err)
			case a.refusal != "" && err == nil:
				t.Error("allowed")
			case a.refusal != "" && !strings.Contains(err.Error(), a.refusal):
				t.Errorf("refused with %q, want %q in it", err, a.refusal)
			}
		})
	}
}

// The moment at which the namespaces of these tests were marked, and moments before and after it.
const (
	markedAt = "2026-11-20T12:00:00Z"
	earlier  = "2026-11-20T11:59:59Z"
	later    = "2026-11-20T13:00:01+01:00"
)

// createRoleNamespace creates a namespace as a role agent's is, with the RoleBinding by which the reaper may act there. It has these
// annotations, and labels, in pairs, beside those of a role.
func createRoleNamespace(t *testing.T, client kubernetes.Interface, name string, annotations map[string]string, labels ...string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Annotations: annotations, Labels: map[string]string{lifecycle.LabelAgentRole: "test", lifecycle.LabelOrg: "dexorder"},
	}}
	for pair := range slices.Chunk(labels, 2) {
		namespace.Labels[pair[0]] = pair[1]
	}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	bindReaper(t, client, name)
}

// mark marks a namespace and waits until the API server knows.
func mark(t *testing.T, client kubernetes.Interface, name, value string) {
	t.Helper()
	namespace, err := client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	metav1.SetMetaDataAnnotation(&namespace.ObjectMeta, lifecycle.AnnotationReaping, value)
	if _, err := client.CoreV1().Namespaces().Update(t.Context(), namespace, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mark on "+name+" has no effect", func(ctx context.Context) bool {
		_, err := client.CoreV1().Pods(name).Create(ctx, newPod("probe"), dryRunCreate)
		return err != nil
	})
}

// unmark takes the mark back and waits until the API server knows.
func unmark(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	if err := patchNamespace(t.Context(), client, name, annotation(lifecycle.AnnotationReaping, ""), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, name+" is still marked", func(ctx context.Context) bool {
		_, err := client.CoreV1().Pods(name).Create(ctx, newPod("probe"), dryRunCreate)
		return err == nil
	})
}

// testReaping asks a namespace that is being reaped to run something.
func testReaping(t *testing.T, cp *controlplane.ControlPlane) {
	admin := kubernetes.NewForConfigOrDie(cp.Config)
	createRoleNamespace(t, admin, "agent-quiet", nil)
	createRoleNamespace(t, admin, "agent-reaped", nil)
	for _, namespace := range []string{"agent-quiet", "agent-reaped"} {
		prepareScaling(t, admin, namespace)
	}
	mark(t, admin, "agent-reaped", markedAt)

	refusal := `namespace "agent-reaped" is being reaped, since nothing has run there: it was marked by annotation` +
		` lifecycle.dexorder.io/reaping at "` + markedAt + `" and takes no Pods and workloads; to keep and use it, run:` +
		` kubectl annotate namespace agent-reaped lifecycle.dexorder.io/reaping-`
	t.Run("unmarked", func(t *testing.T) { tryAll(t, admin, starts("agent-quiet", "")) })
	t.Run("marked", func(t *testing.T) { tryAll(t, admin, starts("agent-reaped", refusal)) })
	t.Run("marked, changes that start nothing", func(t *testing.T) { tryAll(t, admin, changes("agent-reaped")) })
	controller := impersonate(cp, controlplane.ServiceAccount("kube-system", "replicaset-controller"))
	tryAll(t, controller, []attempt{{"by a controller", createPod("agent-reaped"), refusal}})

	var protections []attempt
	for i, p := range []struct {
		name        string
		annotations map[string]string
		labels      []string
		refused     bool
	}{
		{"protected by a label", map[string]string{}, []string{lifecycle.AnnotationDoNotReap, "true"}, false},
		{"protected by an empty label", map[string]string{}, []string{lifecycle.AnnotationDoNotReap, ""}, false},
		{"not protected by a label", map[string]string{}, []string{lifecycle.AnnotationDoNotReap, "false"}, true},
		{"protected until a day by a label", map[string]string{}, []string{lifecycle.AnnotationDoNotReapUntil, "2020-01-01"}, false},
		{"protected", map[string]string{lifecycle.AnnotationDoNotReap: "true"}, nil, false},
		{"protected by an empty value", map[string]string{lifecycle.AnnotationDoNotReap: ""}, nil, false},
		{"not protected", map[string]string{lifecycle.AnnotationDoNotReap: "false"}, nil, true},
		{"protected until after the mark", map[string]string{lifecycle.AnnotationDoNotReapUntil: later}, nil, false},
		{"protected until before the mark", map[string]string{lifecycle.AnnotationDoNotReapUntil: earlier}, nil, true},
		{"protected until who knows when", map[string]string{lifecycle.AnnotationDoNotReapUntil: "tomorrow"}, nil, false},
	} {
		namespace := fmt.Sprintf("agent-protection-%d", i)
		p.annotations[lifecycle.AnnotationReaping] = markedAt
		createRoleNamespace(t, admin, namespace, p.annotations, p.labels...)
		want := ""
		if p.refused {
			want = "is being reaped"
		}
		protections = append(protections, attempt{p.name, createPod(namespace), want})
	}
	tryAll(t, admin, protections)

	createRoleNamespace(t, admin, "elsewhere-reaped", map[string]string{lifecycle.AnnotationReaping: markedAt})
	tryAll(t, admin, []attempt{{"somebody else's namespace", createPod("elsewhere-reaped"), ""}})
}

func createPod(namespace string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Pods(namespace).Create(ctx, newPod("new"), dryRunCreate)
		return err
	}
}

// prepareScaling creates what runs nothing and could be told to.
func prepareScaling(t *testing.T, c kubernetes.Interface, namespace string) {
	t.Helper()
	create := metav1.CreateOptions{}
	deployment, set, replicaSet, controller := newDeployment("none"), newStatefulSet("none"), newReplicaSet("none"), newReplicationController("none")
	deployment.Spec.Replicas, set.Spec.Replicas, replicaSet.Spec.Replicas, controller.Spec.Replicas = new(int32), new(int32), new(int32), new(int32)
	cron := newCronJob("none")
	cron.Spec.Suspend = new(true)
	for _, object := range []func() error{
		func() error {
			_, err := c.AppsV1().Deployments(namespace).Create(t.Context(), deployment, create)
			return err
		},
		func() error {
			_, err := c.AppsV1().StatefulSets(namespace).Create(t.Context(), set, create)
			return err
		},
		func() error {
			_, err := c.AppsV1().ReplicaSets(namespace).Create(t.Context(), replicaSet, create)
			return err
		},
		func() error {
			_, err := c.CoreV1().ReplicationControllers(namespace).Create(t.Context(), controller, create)
			return err
		},
		func() error { _, err := c.BatchV1().CronJobs(namespace).Create(t.Context(), cron, create); return err },
	} {
		if err := object(); err != nil {
			t.Fatal(err)
		}
	}
}

var dryRunUpdate = metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}

// starts are all the ways to have something run in a namespace that prepareScaling has prepared.
func starts(namespace, refusal string) []attempt {
	scale := func(kind string, put func(context.Context, kubernetes.Interface, *autoscalingv1.Scale) error) attempt {
		return attempt{"scale of a " + kind, func(ctx context.Context, c kubernetes.Interface) error {
			return put(ctx, c, &autoscalingv1.Scale{
				ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: namespace}, Spec: autoscalingv1.ScaleSpec{Replicas: 1},
			})
		}, refusal}
	}
	return []attempt{
		{"Pod", createPod(namespace), refusal},
		{"Deployment", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().Deployments(namespace).Create(ctx, newDeployment("new"), dryRunCreate)
			return err
		}, refusal},
		{"StatefulSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().StatefulSets(namespace).Create(ctx, newStatefulSet("new"), dryRunCreate)
			return err
		}, refusal},
		{"DaemonSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().DaemonSets(namespace).Create(ctx, newDaemonSet("new"), dryRunCreate)
			return err
		}, refusal},
		{"ReplicaSet", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.AppsV1().ReplicaSets(namespace).Create(ctx, newReplicaSet("new"), dryRunCreate)
			return err
		}, refusal},
		{"ReplicationController", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ReplicationControllers(namespace).Create(ctx, newReplicationController("new"), dryRunCreate)
			return err
		}, refusal},
		{"Job", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.BatchV1().Jobs(namespace).Create(ctx, newJob("new"), dryRunCreate)
			return err
		}, refusal},
		{"CronJob", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.BatchV1().CronJobs(namespace).Create(ctx, newCronJob("new"), dryRunCreate)
			return err
		}, refusal},
		scale("Deployment", func(ctx context.Context, c kubernetes.Interface, s *autoscalingv1.Scale) error {
			_, err := c.AppsV1().Deployments(namespace).UpdateScale(ctx, "none", s, dryRunUpdate)
			return err
		}),
		scale("StatefulSet", func(ctx context.Context, c kubernetes.Interface, s *autoscalingv1.Scale) error {
			_, err := c.AppsV1().StatefulSets(namespace).UpdateScale(ctx, "none", s, dryRunUpdate)
			return err
		}),
		scale("ReplicaSet", func(ctx context.Context, c kubernetes.Interface, s *autoscalingv1.Scale) error {
			_, err := c.AppsV1().ReplicaSets(namespace).UpdateScale(ctx, "none", s, dryRunUpdate)
			return err
		}),
		scale("ReplicationController", func(ctx context.Context, c kubernetes.Interface, s *autoscalingv1.Scale) error {
			_, err := c.CoreV1().ReplicationControllers(namespace).UpdateScale(ctx, "none", s, dryRunUpdate)
			return err
		}),
		{"replicas of a Deployment", changeDeployment(namespace, func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(1)) }), refusal},
		{"CronJob that was suspended", changeCronJob(namespace, func(j *batchv1.CronJob) { j.Spec.Suspend = nil }), refusal},
	}
}

// changes are updates that start nothing.
func changes(namespace string) []attempt {
	return []attempt{
		{"label", changeDeployment(namespace, func(d *appsv1.Deployment) { metav1.SetMetaDataLabel(&d.ObjectMeta, "team", "blue") }), ""},
		{"image", changeDeployment(namespace, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
		}), ""},
		{"schedule", changeCronJob(namespace, func(j *batchv1.CronJob) { j.Spec.Schedule = "@weekly" }), ""},
		{"ConfigMap", func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, dryRunCreate)
			return err
		}, ""},
	}
}

func changeDeployment(namespace string, change func(*appsv1.Deployment)) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		d, err := c.AppsV1().Deployments(namespace).Get(ctx, "none", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(d)
		_, err = c.AppsV1().Deployments(namespace).Update(ctx, d, dryRunUpdate)
		return err
	}
}

func changeCronJob(namespace string, change func(*batchv1.CronJob)) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		j, err := c.BatchV1().CronJobs(namespace).Get(ctx, "none", metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(j)
		_, err = c.BatchV1().CronJobs(namespace).Update(ctx, j, dryRunUpdate)
		return err
	}
}
