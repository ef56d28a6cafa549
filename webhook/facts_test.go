package webhook

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// inCluster is the cluster that the tests of facts share, and what was put into it.
type inCluster struct {
	api        kubernetes.Interface
	deployment *appsv1.Deployment
	replicaSet *appsv1.ReplicaSet
	loneSet    *appsv1.ReplicaSet
	foreignSet *appsv1.ReplicaSet
	job        *batchv1.Job
	cronJob    *batchv1.CronJob
	daemonSet  *appsv1.DaemonSet
}

// TestOnAPIServer shares one API server among the tests that need a real one.
func TestOnAPIServer(t *testing.T) {
	cp := controlplane.StartForTest(t, controlplane.Options{WithoutServiceAccountAdmission: true})
	c := &inCluster{api: kubernetes.NewForConfigOrDie(cp.Config)}
	c.fill(t)
	t.Run("facts", func(t *testing.T) { c.testFacts(t, cp) })
	t.Run("events", func(t *testing.T) { testEvents(t, c.api.CoreV1()) })
	t.Run("forged review", func(t *testing.T) { c.testForgedReview(t, cp) })
}

func (c *inCluster) testFacts(t *testing.T, cp *controlplane.ControlPlane) {
	// By name every namespace is watched by itself, with a prefix there is one watch over all.
	for name, coverage := range map[string][]v1alpha1.Namespaces{
		"named":    {{Names: []string{covered, "more"}}},
		"prefixed": {{Prefixes: []string{"agen"}}},
	} {
		t.Run(name, func(t *testing.T) {
			cluster, err := NewCluster(cp.Config, coverage, slog.New(slog.DiscardHandler))
			must(t, err)
			t.Run("deletion before memory is filled", func(t *testing.T) { c.testDeletion(t, cluster, false) })
			t.Run("owners before memory is filled", func(t *testing.T) { c.testOwners(t, cluster, false) })
			if _, err := claims(cluster, "Pod", false, "none"); err == nil || cluster.Ready() == nil {
				t.Error("which Deployments mount a claim cannot be known yet, and is")
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- cluster.Run(ctx) }()
			waitUntil(t, "memory is filled", func() bool { return cluster.Ready() == nil })
			t.Run("owners", func(t *testing.T) { c.testOwners(t, cluster, false) })
			t.Run("fresh owners", func(t *testing.T) { c.testOwners(t, cluster, true) })
			t.Run("claims", func(t *testing.T) { c.testClaims(t, cluster) })
			t.Run("deletion", func(t *testing.T) { c.testDeletion(t, cluster, false) })
			t.Run("deletion, fresh", func(t *testing.T) { c.testDeletion(t, cluster, true) })
			t.Run("watch", func(t *testing.T) { c.testWatch(t, cluster) })
			t.Run("another scope", func(t *testing.T) { testRescope(t, cluster) })
			cancel()
			must(t, <-done)
		})
	}
}

func (c *inCluster) testOwners(t *testing.T, cluster *Cluster, fresh bool) {
	deployment := &policy.Owner{
		Kinds: []string{"ReplicaSet", "Deployment"}, Name: "d", Labels: map[string]string{"l": "d"}, AgentContainer: "agent",
		Sidecar: &corev1.Container{Name: lifecycle.SidecarContainer, Image: "example.org/sidecar"},
	}
	tests := []struct {
		name string
		ref  *metav1.OwnerReference
		want *policy.Owner
	}{
		{"none", nil, nil},
		{"Deployment through its ReplicaSet", ref(appsv1.SchemeGroupVersion.String(), "ReplicaSet", c.replicaSet), deployment},
		{"CronJob through its Job", ref("batch/v1", "Job", c.job), &policy.Owner{Kinds: []string{"Job", "CronJob"}, Name: "c"}},
		{"DaemonSet", ref("apps/v1", "DaemonSet", c.daemonSet), &policy.Owner{Kinds: []string{"DaemonSet"}, Name: "ds"}},
		{"ReplicaSet of nobody", ref("apps/v1", "ReplicaSet", c.loneSet), &policy.Owner{Kinds: []string{"ReplicaSet"}, Name: "lone"}},
		{"ReplicaSet of an unknown kind", ref("apps/v1", "ReplicaSet", c.foreignSet), &policy.Owner{Kinds: []string{"ReplicaSet"}, Name: "foreign"}},
		{"a forged UID", &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: c.replicaSet.Name, UID: "forged", Controller: new(true)}, nil},
		{"a name that is not there", &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "gone", UID: "x", Controller: new(true)}, nil},
		{"a kind of the same name elsewhere", ref("example.org/v1", "Deployment", c.deployment), nil},
		{"not the controller", &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: c.replicaSet.Name, UID: c.replicaSet.UID}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var meta metav1.ObjectMeta
			if tt.ref != nil {
				meta.OwnerReferences = []metav1.OwnerReference{*tt.ref}
			}
			r := &policy.Request{Namespace: covered, Object: &workload.Object{Kind: "Pod", Meta: &meta}}
			facts, err := cluster.Facts(t.Context(), r, policy.Needs{Owner: true}, fresh)
			must(t, err)
			if facts.Owner != nil && facts.Owner.Sidecar != nil {
				facts.Owner.Sidecar = &corev1.Container{Name: facts.Owner.Sidecar.Name, Image: facts.Owner.Sidecar.Image}
			}
			if facts.Owner != nil {
				if facts.Owner.Created.IsZero() || facts.Owner.UID == "" {
					t.Errorf("the owner's creation %s or UID %q is missing", facts.Owner.Created, facts.Owner.UID)
				}
				facts.Owner.Created, facts.Owner.UID = metav1.Time{}, "" // the API server's to choose
			}
			if diff := cmp.Diff(tt.want, facts.Owner); diff != "" {
				t.Errorf("owner (-want +got):\n%s", diff)
			}
		})
	}
}

func (c *inCluster) testClaims(t *testing.T, cluster *Cluster) {
	got, err := claims(cluster, "Deployment", false, "data", "none")
	must(t, err)
	want := map[string]policy.Claim{
		"data": {Exists: true, Deployment: "d", MountedBy: []string{"d"}},
		"none": {},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}

	// What comes and goes is known at once where it matters, and soon elsewhere.
	_, err = c.api.CoreV1().PersistentVolumeClaims(covered).Create(t.Context(), newClaim("late"), metav1.CreateOptions{})
	must(t, err)
	second := newAgentDeployment("second", "late")
	_, err = c.api.AppsV1().Deployments(covered).Create(t.Context(), second, metav1.CreateOptions{})
	must(t, err)
	if got, err := claims(cluster, "Pod", false, "late"); err != nil || !got["late"].Exists {
		t.Errorf("for a Pod, a new claim: %+v, %v", got, err)
	}
	waitUntil(t, "the new Deployment is known", func() bool {
		got, err := claims(cluster, "Deployment", false, "late")
		return err == nil && slices.Equal(got["late"].MountedBy, []string{"second"})
	})
	must(t, c.api.CoreV1().PersistentVolumeClaims(covered).Delete(t.Context(), "late", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	must(t, c.api.AppsV1().Deployments(covered).Delete(t.Context(), "second", metav1.DeleteOptions{}))
	if got, err := claims(cluster, "Deployment", true, "late"); err != nil || len(got["late"].MountedBy) > 0 {
		t.Errorf("fresh, a Deployment that has gone: %+v, %v", got, err)
	}
	c.forget(t, "late")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := &policy.Request{Namespace: covered, Object: &workload.Object{Kind: "Pod", Meta: &metav1.ObjectMeta{}}}
	if facts, err := cluster.Facts(ctx, r, policy.Needs{Claims: []string{"unheard-of"}}, false); err == nil {
		t.Errorf("a look-up that failed is taken for an answer: %+v", facts)
	}
}

// forget removes what protects a claim, for which there is no controller here.
func (c *inCluster) forget(t *testing.T, claim string) {
	t.Helper()
	patch := []byte(`{"metadata":{"finalizers":null}}`)
	_, _ = c.api.CoreV1().PersistentVolumeClaims(covered).Patch(t.Context(), claim, types.MergePatchType, patch, metav1.PatchOptions{})
}

// While other namespaces are being read the ones of before are served, and then the new ones are.
func testRescope(t *testing.T, cluster *Cluster) {
	cluster.Cover([]v1alpha1.Namespaces{{Names: []string{covered, "uncovered"}}})
	if err := cluster.Ready(); err != nil {
		t.Errorf("unready for a new policy: %v", err)
	}
	r := &policy.Request{Namespace: "uncovered", Object: &workload.Object{Kind: "Deployment", Meta: &metav1.ObjectMeta{}}}
	waitUntil(t, "the new namespace is known", func() bool {
		_, err := cluster.Facts(t.Context(), r, policy.Needs{Claims: []string{"none"}}, false)
		return err == nil
	})
	got, err := claims(cluster, "Deployment", false, "data")
	if err != nil || !got["data"].Exists {
		t.Errorf("in the namespace of before: %+v, %v", got, err)
	}
}

func claims(cluster *Cluster, kind string, fresh bool, names ...string) (map[string]policy.Claim, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	r := &policy.Request{Namespace: covered, Object: &workload.Object{Kind: kind, Meta: &metav1.ObjectMeta{}}}
	facts, err := cluster.Facts(ctx, r, policy.Needs{Claims: names}, fresh)
	if err != nil {
		return nil, err
	}
	return facts.Claims, nil
}

func ref(apiVersion, kind string, o metav1.Object) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: o.GetName(), UID: o.GetUID(), Controller: new(true)}
}

func ownedBy(name string, owner *metav1.OwnerReference) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Namespace: covered}
	if owner != nil {
		m.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	return m
}

func (c *inCluster) fill(t *testing.T) {
	t.Helper()
	ctx, create := t.Context(), metav1.CreateOptions{}
	for _, name := range []string{covered, "more", "uncovered"} {
		_, err := c.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, create)
		must(t, err)
	}
	template := newAgentDeployment("", "").Spec.Template
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	var err error
	c.deployment, err = c.api.AppsV1().Deployments(covered).Create(ctx, newAgentDeployment("d", "data"), create)
	must(t, err)
	for set, meta := range map[**appsv1.ReplicaSet]metav1.ObjectMeta{
		&c.replicaSet: ownedBy("d-1", ref("apps/v1", "Deployment", c.deployment)),
		&c.loneSet:    ownedBy("lone", nil),
		&c.foreignSet: ownedBy("foreign", &metav1.OwnerReference{APIVersion: "example.org/v1", Kind: "Rollout", Name: "r", UID: "r", Controller: new(true)}),
	} {
		rs := &appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
		*set, err = c.api.AppsV1().ReplicaSets(covered).Create(ctx, rs, create)
		must(t, err)
	}
	ds := &appsv1.DaemonSet{ObjectMeta: ownedBy("ds", nil), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}}
	c.daemonSet, err = c.api.AppsV1().DaemonSets(covered).Create(ctx, ds, create)
	must(t, err)
	job := batchv1.JobSpec{Template: *template.DeepCopy()}
	job.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	cj := &batchv1.CronJob{
		ObjectMeta: ownedBy("c", nil),
		Spec:       batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: job}},
	}
	c.cronJob, err = c.api.BatchV1().CronJobs(covered).Create(ctx, cj, create)
	must(t, err)
	j := &batchv1.Job{ObjectMeta: ownedBy("c-1", ref("batch/v1", "CronJob", c.cronJob)), Spec: job}
	c.job, err = c.api.BatchV1().Jobs(covered).Create(ctx, j, create)
	must(t, err)
	claim := newClaim("data")
	claim.Labels = map[string]string{lifecycle.LabelDeployment: "d"}
	_, err = c.api.CoreV1().PersistentVolumeClaims(covered).Create(ctx, claim, create)
	must(t, err)
}

func newAgentDeployment(name, claim string) *appsv1.Deployment {
	d := newDeployment()
	d.Name, d.Labels = name, map[string]string{"l": name}
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}
	d.Spec.Template.Labels = map[string]string{"app": "x"}
	d.Spec.Template.Spec.Containers = append(d.Spec.Template.Spec.Containers,
		corev1.Container{Name: lifecycle.SidecarContainer, Image: "example.org/sidecar"})
	if claim != "" {
		d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}}}
	}
	return d
}

func newClaim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: covered},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
}
