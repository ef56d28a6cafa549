package integration

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// fakeClock is the real time, moved ahead.
type fakeClock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *fakeClock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// staticPolicy is a policy that does not change by itself.
type staticPolicy struct{ file *v1alpha1.LifecyclePolicy }

func (p staticPolicy) File() *v1alpha1.LifecyclePolicy { return p.file }

// heard remembers events.
type heard struct {
	mu     sync.Mutex
	events []reaper.Event
}

func (h *heard) Announce(e reaper.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, e)
}

// of returns the types of what was told of an object, in order, each once.
func (h *heard) of(name string) []reaper.EventType {
	h.mu.Lock()
	defer h.mu.Unlock()
	var types []reaper.EventType
	seen := map[string]bool{}
	for _, e := range h.events {
		if e.Name == name && !seen[e.ID] {
			seen[e.ID] = true
			types = append(types, e.Type)
		}
	}
	return types
}

// closedBreaker lets everything pass.
type closedBreaker struct{}

func (closedBreaker) Closed(context.Context) error       { return nil }
func (closedBreaker) Take(context.Context, string) error { return nil }

// noArchive keeps nothing.
type noArchive struct{}

func (noArchive) Save(context.Context, *corev1.Namespace, time.Duration, bool) error { return nil }
func (noArchive) Release(context.Context) error                                      { return nil }

// reaping is a reaper with a clock of its own, and the rights of the manifests.
type reaping struct {
	*cluster
	clock  *fakeClock
	policy *v1alpha1.LifecyclePolicy
	heard  *heard
	config *rest.Config
}

// newReaping returns a reaper for a cluster whose servers have none.
func (c *cluster) newReaping(t *testing.T) *reaping {
	t.Helper()
	policy, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	config := c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, installation.ServerAccount))
	config.QPS = -1
	return &reaping{cluster: c, clock: &fakeClock{}, policy: policy, heard: &heard{}, config: config}
}

func (r *reaping) reaper(t *testing.T, changes ...func(*reaper.Options)) *reaper.Reaper {
	t.Helper()
	o := reaper.Options{
		Config: r.config, Namespace: installation.SystemNamespace, Identity: t.Name(), Policy: staticPolicy{r.policy},
		Breaker: closedBreaker{}, Announcer: r.heard, Archiver: noArchive{}, Now: r.clock.Now,
		Metrics: reaper.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
	for _, change := range changes {
		change(&o)
	}
	made, err := reaper.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// testWriter logs into a test.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Log(strings.TrimSpace(string(p)))
	}
	return len(p), nil
}

// once makes a pass.
func (r *reaping) once(t *testing.T, changes ...func(*reaper.Options)) *reaper.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	report, err := r.reaper(t, changes...).Once(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// verdict is what a report says of an object; "" if nothing.
func verdict(report *reaper.Report, kind, name string) string {
	for i := range report.Reapers {
		for _, d := range report.Reapers[i].Decisions {
			if d.Kind == kind && d.Name == name {
				return d.Verdict
			}
		}
	}
	return ""
}

// roleNamespace makes a role agent's namespace, with a Deployment without replicas and a claim, as the template does.
func (c *cluster) roleNamespace(t *testing.T, name string, changes ...func(*corev1.Namespace)) *corev1.Namespace {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{lifecycle.LabelAgentRole: "tester", lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: "test"},
		Annotations: map[string]string{},
	}}
	for _, change := range changes {
		change(ns)
	}
	c.create(t, ns)
	c.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: installation.SystemNamespace, Name: installation.ServerAccount}},
	})
	return ns
}

// furnish puts an agent without Pods into a namespace, and its claim.
func (c *cluster) furnish(t *testing.T, namespace string) {
	t.Helper()
	d := agent("worker", pod(mounting("worker-data")))
	d.Namespace, d.Spec.Replicas = namespace, ptr(int32(0))
	c.create(t, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "worker-data", Labels: map[string]string{lifecycle.LabelDeployment: "worker"}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Mi")}},
		},
	})
	c.create(t, d)
}

func (c *cluster) namespace(t *testing.T, name string) *corev1.Namespace {
	t.Helper()
	ns := &corev1.Namespace{}
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: name}, ns); err != nil {
		if apierrors.IsNotFound(err) {
			return nil
		}
		t.Fatal(err)
	}
	return ns
}

// TestNamespaces shows the way of a role agent's namespace, with the rights and admission policies of the manifests.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	c := installWith(t, controlplane.Options{ControllerManager: true}, "--reaper=false")
	t.Run("reaped in order", func(t *testing.T) { testReapedInOrder(t, c.newReaping(t)) })
	t.Run("kept before it is reaped", func(t *testing.T) { testKeptBeforeReaped(t, c.newReaping(t)) })
}

func testReapedInOrder(t *testing.T, r *reaping) {
	const name = "agent-quiet"
	r.roleNamespace(t, name)
	r.furnish(t, name)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}}
	r.get(t, claim)
	claim.Finalizers = append(claim.Finalizers, "e2e.lifecycle.dexorder.io/hold")
	if err := r.Client.Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}

	r.once(t)
	ns := r.namespace(t, name)
	for _, key := range []string{lifecycle.AnnotationLastPodActivity, lifecycle.AnnotationIdleSince} {
		if _, err := time.Parse(time.RFC3339, ns.Annotations[key]); err != nil {
			t.Errorf("annotation %s is %q", key, ns.Annotations[key])
		}
	}
	r.clock.pass(59 * time.Minute)
	if got := verdict(r.once(t), "Namespace", name); got != "" {
		t.Errorf("after 59 minutes: %s", got)
	}
	r.clock.pass(2 * time.Minute)
	for _, want := range []string{"ready", "marked"} {
		if got := verdict(r.once(t), "Namespace", name); got != want {
			t.Fatalf("verdict %q, want %q", got, want)
		}
	}
	r.get(t, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker"}}) // nothing has been deleted yet
	intruder := agent("intruder")
	intruder.Namespace = name
	eventually(t, "refusal", func() (bool, error) {
		err := r.Client.Create(t.Context(), intruder, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "is being reaped"), err
	})

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, _ = r.reaper(t).Once(ctx) // waits for the claim
	ns = r.namespace(t, name)
	if ns == nil || ns.DeletionTimestamp != nil {
		t.Fatal("the namespace is deleted before its claim has gone")
	}
	err := r.Client.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "worker"}, &appsv1.Deployment{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the workload: %v, want it gone before the claims", err)
	}
	r.get(t, claim)
	if claim.DeletionTimestamp == nil {
		t.Fatal("the claim is not deleted")
	}
	claim.Finalizers = nil
	if err := r.Client.Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	report := r.once(t)
	if report.Reapers[0].Reaped != 1 {
		t.Errorf("report: %+v", report.Reapers[0])
	}
	eventually(t, "end of the namespace", func() (bool, error) { return r.namespace(t, name) == nil, nil })
	want := []reaper.EventType{reaper.NamespaceCreated, reaper.NamespaceIdle, reaper.NamespaceMarked, reaper.NamespaceReaping, reaper.NamespaceReaped}
	if got := r.heard.of(name); !equalTypes(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
}

func equalTypes(a, b []reaper.EventType) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
