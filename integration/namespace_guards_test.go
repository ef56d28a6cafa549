package integration

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// barePod makes a Pod that mounts the claim of furnish. There is no kubelet: the phase is what the test says.
func (c *cluster) barePod(t *testing.T, namespace string, phase corev1.PodPhase) *corev1.Pod {
	t.Helper()
	template := agent("bare", pod(mounting("worker-data"))).Spec.Template
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bare"}, Spec: template.Spec}
	if phase != corev1.PodPending {
		// Pods on a node that is not there are deleted some time after the node was missed: on one that others have missed, at once.
		p.Spec.NodeName = "node-of-" + namespace
	}
	eventually(t, "service account of "+namespace, func() (bool, error) {
		err := c.Client.Create(t.Context(), p)
		return err == nil, err
	})
	c.setPhase(t, p, phase)
	return p
}

func (c *cluster) setPhase(t *testing.T, p *corev1.Pod, phase corev1.PodPhase) {
	t.Helper()
	patch := `{"status":{"phase":"` + string(phase) + `"}}`
	if err := c.Client.Status().Patch(t.Context(), p, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

// noPods keeps controllers from making Pods in a namespace, as a quota that is used up does.
func (c *cluster) noPods(t *testing.T, namespace string) {
	t.Helper()
	c.create(t, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("0")}},
	})
}

// testGuards lets an hour pass over namespaces of which two are dead, and for each of the others there is a reason why not.
func testGuards(t *testing.T, r *reaping) {
	template := agent("wanting").Spec.Template
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	job := *template.DeepCopy()
	job.Spec.RestartPolicy = corev1.RestartPolicyNever
	in := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "agent-guard-" + name, Name: "wanting"}
	}
	wanting := map[string]client.Object{
		"deployment":  &appsv1.Deployment{ObjectMeta: in("deployment"), Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}},
		"statefulset": &appsv1.StatefulSet{ObjectMeta: in("statefulset"), Spec: appsv1.StatefulSetSpec{Selector: selector, Template: template}},
		"replicaset":  &appsv1.ReplicaSet{ObjectMeta: in("replicaset"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}},
		"daemonset":   &appsv1.DaemonSet{ObjectMeta: in("daemonset"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}},
		"job":         &batchv1.Job{ObjectMeta: in("job"), Spec: batchv1.JobSpec{Template: job}},
		"cronjob": &batchv1.CronJob{ObjectMeta: in("cronjob"), Spec: batchv1.CronJobSpec{
			Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: job}},
		}},
	}
	rollout := &appsv1.ReplicaSet{ObjectMeta: in("rollout"), Spec: appsv1.ReplicaSetSpec{Selector: selector, Template: template}}
	rollout.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: "argoproj.io/v1alpha1", Kind: "Rollout", Name: "wanting", UID: "no-such", Controller: ptr(true),
	}}
	wanting["rollout"] = rollout

	notes := func(key, value string) func(*corev1.Namespace) {
		return func(ns *corev1.Namespace) { ns.Annotations[key] = value }
	}
	labels := func(key, value string) func(*corev1.Namespace) {
		return func(ns *corev1.Namespace) { ns.Labels[key] = value }
	}
	verdicts := map[string]string{} // at the last pass; "" is for what is said to nobody
	keep := func(name, verdict string, changes ...func(*corev1.Namespace)) string {
		r.own(t, name, changes...)
		verdicts[name] = verdict
		return name
	}
	for name, o := range wanting {
		keep("agent-guard-"+name, "unhealthy")
		r.noPods(t, "agent-guard-"+name)
		r.create(t, o)
	}
	verdicts["agent-guard-cronjob"] = "" // it waits for its time
	keep("agent-guard-protected", "", notes(lifecycle.AnnotationDoNotReap, "no"))
	keep("agent-guard-until", "", notes(lifecycle.AnnotationDoNotReapUntil, time.Now().Add(48*time.Hour).Format(time.RFC3339)))
	keep("agent-guard-until-when", "", notes(lifecycle.AnnotationDoNotReapUntil, "tomorrow"))
	keep("agents-guard", "")
	keep("xagent-guard", "")
	keep("agent-guard-no-role", "", labels(lifecycle.LabelAgentRole, ""))
	keep("agent-guard-foreign", "", labels(lifecycle.LabelOrg, "acme"))
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: keep("agent-guard-claim", ""), Name: "worker-data"}}
	r.annotate(t, claim, lifecycle.AnnotationDoNotReap, "true")
	r.barePod(t, keep("agent-guard-pending", "unhealthy"), corev1.PodPending)
	r.barePod(t, keep("agent-guard-running", "unhealthy"), corev1.PodRunning) // which is never ready
	rewritten := keep("agent-guard-rewritten", "")
	dead := []string{"agent-guard-dead", "agent-guard-succeeded", "agent-guard-failed"}
	for _, name := range dead {
		r.own(t, name, notes(lifecycle.AnnotationDoNotReap, "false"), notes(lifecycle.AnnotationLastPodActivity, "0"),
			notes(lifecycle.AnnotationDoNotReapUntil, "2020-01-01T00:00:00Z"))
	}
	r.barePod(t, dead[1], corev1.PodSucceeded)
	r.barePod(t, dead[2], corev1.PodFailed)

	r.once(t)
	r.clock.pass(61 * time.Minute)
	r.annotate(t, bare(rewritten), lifecycle.AnnotationLastPodActivity, "2099-01-01T00:00:00Z")
	var report *reaper.Report
	for range 4 {
		report = r.once(t)
		if report.Failed() || report.CapExceeded() {
			t.Errorf("report: %+v", report)
		}
	}
	r.goes(t, dead...)
	for name, want := range verdicts {
		r.untouched(t, name)
		if got := verdict(report, "Namespace", name); got != want {
			t.Errorf("namespace %s: %s, want %q", name, got, want)
		}
		if ns := r.namespace(t, name); ns.Annotations[lifecycle.AnnotationReaping] != "" {
			t.Errorf("namespace %s is marked: %v", name, ns.Annotations)
		}
	}
	at, err := time.Parse(time.RFC3339, r.namespace(t, rewritten).Annotations[lifecycle.AnnotationLastPodActivity])
	if left := r.clock.Now().Sub(at); err != nil || left < 0 || left > 10*time.Minute {
		t.Errorf("the activity in the future was repaired to %s, %v", at, err)
	}
}

// What is marked stays when somebody says so, or something lives; what the reaper would have deleted is all there.
func testUndo(t *testing.T, r *reaping) {
	undo := map[string]func(name string){
		"agent-undo-protected": func(name string) { r.annotate(t, bare(name), lifecycle.AnnotationDoNotReap, "true") },
		"agent-undo-unmarked":  func(name string) { r.annotate(t, bare(name), lifecycle.AnnotationReaping, "") },
		"agent-undo-for-a-while": func(name string) {
			r.annotate(t, bare(name), lifecycle.AnnotationDoNotReapUntil, r.clock.Now().Add(5*time.Minute).Format(time.RFC3339))
		},
		"agent-undo-claim": func(name string) {
			r.annotate(t, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}}, lifecycle.AnnotationDoNotReap, "")
			r.annotate(t, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}}, lifecycle.AnnotationDoNotReap, "yes")
		},
		// A marked namespace takes no new Pods: this one comes back to life.
		"agent-undo-pod": func(name string) {
			r.setPhase(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "bare"}}, corev1.PodRunning)
		},
	}
	r.policy.Reaper.Sightings = 1
	var names []string
	for name := range undo {
		r.own(t, name)
		names = append(names, name)
	}
	r.barePod(t, "agent-undo-pod", corev1.PodSucceeded)
	r.once(t)
	r.clock.pass(61 * time.Minute)
	report := r.once(t)
	for _, name := range names {
		if got := verdict(report, "Namespace", name); got != "marked" {
			t.Fatalf("namespace %s: verdict %q, want marked", name, got)
		}
		undo[name](name)
	}
	r.clock.pass(6 * time.Minute)
	for range 2 {
		if report := r.once(t); report.Failed() || report.Reapers[0].Candidates > 0 {
			t.Errorf("report: %+v", report.Reapers[0])
		}
		for _, name := range names {
			r.untouched(t, name)
			if mark, has := r.namespace(t, name).Annotations[lifecycle.AnnotationReaping]; has {
				t.Errorf("namespace %s is still marked: %s", name, mark)
			}
		}
	}
}

// A pass that would delete too much deletes nothing and says so, until the policy allows it.
func testCap(t *testing.T, r *reaping) {
	names := []string{"agent-cap-a", "agent-cap-b", "agent-cap-c"}
	for _, name := range names {
		r.own(t, name)
	}
	r.policy.Reaper.Sightings = 1
	r.policy.Reaper.Cap.Count = 2
	r.once(t)
	r.clock.pass(61 * time.Minute)
	for range 2 {
		report := r.once(t)
		result := report.Reapers[0]
		if !report.CapExceeded() || result.Candidates != 3 || result.Cap != 2 || result.Reaped != 0 {
			t.Errorf("report: %+v", result)
		}
		for _, name := range names {
			r.untouched(t, name)
			if r.namespace(t, name).Annotations[lifecycle.AnnotationReaping] != "" {
				t.Errorf("namespace %s is marked", name)
			}
		}
	}
	if !slices.ContainsFunc(r.heard.all(), func(e reaper.Event) bool {
		return e.Type == reaper.CapExceeded && strings.Contains(e.Reason, "3 of 3 namespaces would go, more than 2")
	}) {
		t.Errorf("nobody was told: %+v", r.heard.all())
	}
	r.policy.Reaper.Cap.Count = 3
	r.once(t)
	// Marked ones count again when they go.
	r.policy.Reaper.Cap.Count = 2
	if report := r.once(t); !report.CapExceeded() {
		t.Errorf("report: %+v", report.Reapers[0])
	}
	for _, name := range names {
		r.untouched(t, name)
	}
	r.policy.Reaper.Cap.Count = 3
	r.once(t)
	r.goes(t, names...)
}

// testCapUnderWay: what does not get further is no reason to reap nothing else.
func testCapUnderWay(t *testing.T, r *reaping) {
	const stuck, next = "agent-cap-stuck", "agent-cap-next"
	r.policy.Reaper.Sightings = 1
	r.policy.Reaper.Cap.Count = 1
	r.policy.Reaper.Interval = metav1.Duration{Duration: time.Second}
	r.own(t, stuck)
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: stuck, Name: "worker-data"}}
	r.get(t, claim)
	claim.Finalizers = append(claim.Finalizers, "e2e.lifecycle.dexorder.io/hold")
	if err := r.Client.Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	defer r.running(t, "cap")()
	eventually(t, "first sight", func() (bool, error) {
		return r.namespace(t, stuck).Annotations[lifecycle.AnnotationIdleSince] != "", nil
	})
	r.clock.pass(61 * time.Minute)
	eventually(t, "deletion of the claim", func() (bool, error) {
		r.get(t, claim)
		return claim.DeletionTimestamp != nil, nil
	})
	r.own(t, next)
	eventually(t, "first sight of the next", func() (bool, error) {
		return r.namespace(t, next).Annotations[lifecycle.AnnotationIdleSince] != "", nil
	})
	r.clock.pass(61 * time.Minute)
	r.goes(t, next)
	if ns := r.namespace(t, stuck); ns == nil || ns.DeletionTimestamp != nil {
		t.Errorf("%s went before its claim", stuck)
	}
	r.get(t, claim)
	claim.Finalizers = nil
	if err := r.Client.Update(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
	r.goes(t, stuck)
}

func (h *heard) all() []reaper.Event {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

// A dry run by policy says what it would do, and one by flag writes nothing at all besides.
func testDryRuns(t *testing.T, r *reaping) {
	names := []string{"agent-dry-marked", "agent-dry-ready"}
	r.policy.Reaper.Sightings = 1
	r.own(t, names[0])
	r.once(t)
	r.clock.pass(61 * time.Minute)
	r.own(t, names[1])
	r.once(t)
	r.clock.pass(61 * time.Minute)
	wrote := 0
	count := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		if writes(request) && about(request, names...) {
			wrote++
		}
		return next.RoundTrip(request)
	})
	for name, dry := range map[string]func(*v1alpha1.Reaper, *reaper.Options){
		"by policy":          func(p *v1alpha1.Reaper, _ *reaper.Options) { p.DryRun = true },
		"of namespaces":      func(p *v1alpha1.Reaper, _ *reaper.Options) { p.Namespaces.Mode = v1alpha1.ReaperDryRun },
		"switched off":       func(p *v1alpha1.Reaper, _ *reaper.Options) { p.Namespaces.Mode = v1alpha1.ReaperOff },
		"that writes nought": func(_ *v1alpha1.Reaper, o *reaper.Options) { o.DryRun = true },
	} {
		t.Run(name, func(t *testing.T) {
			before := r.versions(t, names...)
			settings := r.policy.Reaper
			defer func() { r.policy.Reaper = settings }()
			wrote = 0
			report := r.once(t, count, func(o *reaper.Options) { dry(&r.policy.Reaper, o) })
			want := map[string]string{names[0]: "would be dismantled", names[1]: "would be marked"}
			if name == "switched off" {
				want = nil
			}
			for _, n := range names {
				r.untouched(t, n)
				if got := verdict(report, "Namespace", n); got != want[n] {
					t.Errorf("namespace %s: verdict %q, want %q", n, got, want[n])
				}
			}
			if after := r.versions(t, names...); !slices.Equal(before, after) || wrote > 0 {
				t.Errorf("%d writes; versions before and after:\n%v\n%v", wrote, before, after)
			}
		})
	}
	r.once(t)
	r.goes(t, names[0])
}

// A policy that becomes a dry run while a namespace is being taken apart ends that at once.
func testSwitchedToDryRun(t *testing.T, r *reaping) {
	const name = "agent-dry-meanwhile"
	r.own(t, name)
	r.mark(t, name)
	r.once(t, through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		if request.Method == http.MethodDelete {
			r.policy.Reaper.DryRun = true
		}
		return next.RoundTrip(request)
	}))
	if ns := r.namespace(t, name); ns == nil || ns.DeletionTimestamp != nil {
		t.Error("the namespace is gone, or on its way")
	}
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}}
	r.get(t, claim)
	if claim.DeletionTimestamp != nil {
		t.Error("the claim is on its way")
	}
}

// versions are the resource versions of all that is in some namespaces, and of themselves.
func (r *reaping) versions(t *testing.T, namespaces ...string) []string {
	t.Helper()
	var versions []string
	for _, name := range namespaces {
		ns := r.namespace(t, name)
		versions = append(versions, name+"@"+ns.ResourceVersion)
		for _, list := range []client.ObjectList{
			&appsv1.DeploymentList{}, &corev1.PersistentVolumeClaimList{}, &corev1.ConfigMapList{}, &corev1.ServiceList{}, &corev1.EventList{},
		} {
			if err := r.Client.List(t.Context(), list, client.InNamespace(name)); err != nil {
				t.Fatal(err)
			}
			err := meta.EachListItem(list, func(o runtime.Object) error {
				if e, ok := o.(*corev1.Event); ok && e.Source.Component == "persistentvolume-controller" {
					return nil // it says again at any time that a claim waits for its first Pod
				}
				accessor, err := meta.Accessor(o)
				if err == nil {
					versions = append(versions, name+"/"+accessor.GetName()+"@"+accessor.GetResourceVersion())
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Sort(versions)
	return versions
}

// What holds a deletion is reported by name, once it has taken too long, and never forced.
func testFinalizersHold(t *testing.T, r *reaping) {
	const name, finalizer = "agent-stuck", "lifecycle.dexorder.io/test-hold"
	r.own(t, name)
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "held", Finalizers: []string{finalizer}}}
	r.create(t, held)
	r.mark(t, name)
	if report := r.once(t); report.Reapers[0].Reaped != 1 {
		t.Errorf("report: %+v", report.Reapers[0])
	}
	r.clock.pass(-61 * time.Minute) // the API server has no other clock
	eventually(t, "word of what holds the namespace", func() (bool, error) {
		ns := r.namespace(t, name)
		return slices.ContainsFunc(ns.Status.Conditions, func(c corev1.NamespaceCondition) bool {
			return c.Type == corev1.NamespaceFinalizersRemaining && c.Status == corev1.ConditionTrue
		}), nil
	})
	stuck := func() []reaper.Event {
		return slices.DeleteFunc(r.heard.all(), func(e reaper.Event) bool { return e.Name != name || e.Type != reaper.NamespaceStuck })
	}
	r.once(t)
	if got := stuck(); len(got) > 0 {
		t.Errorf("reported at once: %+v", got)
	}
	r.clock.pass(11 * time.Minute)
	r.once(t)
	r.once(t)
	got := stuck()
	if len(got) == 0 || got[0].ID != got[len(got)-1].ID || !strings.Contains(got[0].Reason, finalizer) {
		t.Errorf("reported: %+v", got)
	}
	r.get(t, held)
	if !slices.Contains(held.Finalizers, finalizer) || r.namespace(t, name) == nil {
		t.Errorf("it was forced: %+v", held)
	}
	held.Finalizers = nil
	if err := r.Client.Update(t.Context(), held); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	r.goes(t, name)
}

// A namespace that has not granted it is neither marked, which would close it for Pods, nor reaped. One that takes its grant back once
// it is marked stays as well, though an empty one takes no right inside it to be deleted.
func testUngranted(t *testing.T, r *reaping) {
	const never, late = "agent-ungranted", "agent-ungranted-late"
	withdraw := func(namespace string) *rbacv1.RoleBinding {
		binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "lifecycle-reaper"}}
		r.get(t, binding)
		if err := r.Client.Delete(t.Context(), binding); err != nil {
			t.Fatal(err)
		}
		binding = binding.DeepCopy()
		binding.ResourceVersion, binding.UID = "", ""
		return binding
	}
	for _, name := range []string{never, late} {
		r.own(t, name)
		for _, o := range []client.Object{
			&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker"}},
			&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}},
		} {
			if err := r.Client.Delete(t.Context(), o); err != nil {
				t.Fatal(err)
			}
		}
	}
	binding := withdraw(never)
	r.mark(t, late)
	withdraw(late)
	report := r.once(t)
	if got := verdict(report, "Namespace", never); got != "ungranted" {
		t.Errorf("verdict on %s: %q", never, got)
	}
	if !strings.Contains(report.Reapers[0].Error, late) || !strings.Contains(report.Reapers[0].Error, "does not grant") {
		t.Errorf("the report says nothing of %s: %+v", late, report.Reapers[0])
	}
	for name, marked := range map[string]bool{never: false, late: true} {
		ns := r.namespace(t, name)
		if ns == nil || ns.DeletionTimestamp != nil {
			t.Fatalf("namespace %s was reaped, and has not granted it", name)
		}
		if got := ns.Annotations[lifecycle.AnnotationReaping] != ""; got != marked {
			t.Errorf("namespace %s is marked: %t, want %t", name, got, marked)
		}
	}
	r.create(t, binding)
	eventually(t, "end of the namespace", func() (bool, error) {
		_, _ = r.reaper(t).Once(t.Context())
		got := r.namespace(t, never)
		return got == nil || got.DeletionTimestamp != nil, nil
	})
}

// Somebody protects a ConfigMap: its namespace stays, and is open again.
func testProtectedObject(t *testing.T, r *reaping) {
	const name = "agent-holds-notes"
	r.own(t, name)
	r.create(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: name, Name: "notes", Annotations: map[string]string{lifecycle.AnnotationDoNotReap: "true"},
	}})
	r.mark(t, name)
	r.once(t)
	r.untouched(t, name)
	if ns := r.namespace(t, name); ns.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("the mark is still there: %v", ns.Annotations)
	}
}
