package reaper

import (
	"encoding/json"
	"maps"
	"reflect"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const key, typeKey = lifecycle.LabelDeployment, lifecycle.LabelUserType

func examplePolicy(t *testing.T) *v1alpha1.LifecyclePolicy {
	t.Helper()
	policy, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// alice is an agent of a user type that mounts alice-data.
func alice(t *testing.T, userType string) *agent {
	t.Helper()
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Namespace: "dexorder-agents", Name: "alice", UID: "de91", Labels: map[string]string{key: "alice", typeKey: userType},
	}}
	d.Spec.Template.Spec.Volumes = []corev1.Volume{{VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "alice-data"},
	}}}
	a, ok := agentOf(examplePolicy(t), recordOf(d).(*workload))
	if !ok {
		t.Fatal("alice is no agent")
	}
	return a
}

func TestAgentOf(t *testing.T) {
	policy := examplePolicy(t)
	for name, tc := range map[string]struct {
		change func(*appsv1.Deployment)
		want   lifecycle.UserType
	}{
		"an agent":            {func(*appsv1.Deployment) {}, lifecycle.Free},
		"of a user type":      {func(d *appsv1.Deployment) { d.Labels[typeKey] = "anonymous" }, lifecycle.Anonymous},
		"of no user type":     {func(d *appsv1.Deployment) { d.Labels[typeKey] = "premium" }, ""},
		"a role's":            {func(d *appsv1.Deployment) { d.Namespace = "agent-ceo" }, lifecycle.Enterprise},
		"elsewhere":           {func(d *appsv1.Deployment) { d.Namespace = "default" }, ""},
		"without the label":   {func(d *appsv1.Deployment) { delete(d.Labels, key) }, ""},
		"with another's name": {func(d *appsv1.Deployment) { d.Labels[key] = "bob" }, ""},
		"on its way out":      {func(d *appsv1.Deployment) { d.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, ""},
	} {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: "dexorder-agents", Name: "alice", Labels: map[string]string{key: "alice"},
		}}
		tc.change(d)
		a, ok := agentOf(policy, recordOf(d).(*workload))
		if ok != (tc.want != "") || ok && a.userType != tc.want {
			t.Errorf("%s: got %+v, %v; want %q", name, a, ok, tc.want)
		}
	}
}

func TestDecideClaim(t *testing.T) {
	its := []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "Deployment", Name: "alice", UID: "de91", BlockOwnerDeletion: new(true)}}
	foreign := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "x", UID: "1"}
	labels := func(userType string) map[string]string {
		l := map[string]string{key: "alice"}
		if userType != "" {
			l[typeKey] = userType
		}
		return l
	}
	protects := func(value string) map[string]string { return map[string]string{lifecycle.AnnotationDoNotReap: value} }
	with := func(a, b map[string]string) map[string]string { maps.Copy(a, b); return a }
	for name, tc := range map[string]struct {
		userType  string
		claim     metav1.ObjectMeta
		mountedBy []string
		want      *change
	}{
		"goes with an anonymous agent": {"anonymous", metav1.ObjectMeta{Labels: labels("")}, nil, &change{its, labels("anonymous")}},
		"goes already":                 {"anonymous", metav1.ObjectMeta{Labels: labels("anonymous"), OwnerReferences: its}, nil, nil},
		"beside another owner": {"anonymous", metav1.ObjectMeta{Labels: labels("anonymous"), OwnerReferences: []metav1.OwnerReference{foreign}}, nil,
			&change{append([]metav1.OwnerReference{foreign}, its...), labels("anonymous")}},
		"promised to be kept": {"anonymous", metav1.ObjectMeta{Labels: labels("paid"), OwnerReferences: its}, nil,
			&change{[]metav1.OwnerReference{}, labels("paid")}},
		"promised, and free":     {"anonymous", metav1.ObjectMeta{Labels: labels("paid")}, nil, nil},
		"an unknown promise":     {"anonymous", metav1.ObjectMeta{Labels: labels("premium")}, nil, nil},
		"raised":                 {"paid", metav1.ObjectMeta{Labels: labels("anonymous"), OwnerReferences: its}, nil, &change{[]metav1.OwnerReference{}, labels("paid")}},
		"kept, without a word":   {"free", metav1.ObjectMeta{Labels: labels("")}, nil, &change{nil, labels("free")}},
		"kept":                   {"free", metav1.ObjectMeta{Labels: labels("free")}, nil, nil},
		"not lowered among kept": {"free", metav1.ObjectMeta{Labels: labels("enterprise")}, nil, nil},
		"protected": {"anonymous", metav1.ObjectMeta{Labels: labels("anonymous"), OwnerReferences: its, Annotations: protects("true")}, nil,
			&change{[]metav1.OwnerReference{}, labels("anonymous")}},
		"protected by a label, beside another owner": {"anonymous", metav1.ObjectMeta{Labels: with(labels("anonymous"), protects("yes")),
			OwnerReferences: append([]metav1.OwnerReference{foreign}, its...)}, nil, &change{[]metav1.OwnerReference{foreign}, labels("anonymous")}},
		"protected, and free":    {"anonymous", metav1.ObjectMeta{Labels: labels("anonymous"), Annotations: protects("true")}, nil, nil},
		"not protected any more": {"anonymous", metav1.ObjectMeta{Labels: labels("anonymous"), Annotations: protects("false")}, nil, &change{its, labels("anonymous")}},
		"mounted by a neighbour": {"anonymous", metav1.ObjectMeta{Labels: labels("")}, []string{"alice", "bob"}, nil},
		"a neighbour's":          {"anonymous", metav1.ObjectMeta{Labels: map[string]string{key: "bob"}}, nil, nil},
		"nobody's":               {"anonymous", metav1.ObjectMeta{}, nil, nil},
		"not mounted":            {"anonymous", metav1.ObjectMeta{Name: "other", Labels: labels("")}, nil, nil},
		"on its way out":         {"anonymous", metav1.ObjectMeta{Labels: labels(""), DeletionTimestamp: &metav1.Time{Time: time.Now()}}, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.claim.Name == "" {
				tc.claim.Name = "alice-data"
			}
			before := tc.claim.DeepCopy()
			d := dependentOf(&tc.claim)
			if got := decideClaim(alice(t, tc.userType), &d, tc.mountedBy, newYear); !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if !reflect.DeepEqual(before, &tc.claim) {
				t.Errorf("the claim in the cache was changed: %+v", tc.claim)
			}
		})
	}
}

func TestDecideService(t *testing.T) {
	a := alice(t, "free")
	mine := metav1.ObjectMeta{Name: "alice", Labels: map[string]string{key: "alice"}}
	decide := func(m metav1.ObjectMeta) *change {
		d := dependentOf(&m)
		return decideService(a, &d)
	}
	got := decide(mine)
	if got == nil || len(got.owners) != 1 || got.owners[0].UID != "de91" || !*got.owners[0].BlockOwnerDeletion {
		t.Fatalf("got %+v, want the agent as owner", got)
	}
	mine.OwnerReferences = got.owners
	for name, s := range map[string]metav1.ObjectMeta{
		"owned": mine, "a neighbour's": {Labels: map[string]string{key: "bob"}}, "nobody's": {},
		"on its way out": {Labels: mine.Labels, DeletionTimestamp: &metav1.Time{Time: time.Now()}},
	} {
		if got := decide(s); got != nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	patch, err := (&change{labels: map[string]string{"a": "b"}}).patch("u1", "7")
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Metadata struct {
			UID, ResourceVersion string
			OwnerReferences      []metav1.OwnerReference
		}
	}
	if err := json.Unmarshal(patch, &m); err != nil || m.Metadata.UID != "u1" || m.Metadata.ResourceVersion != "7" || m.Metadata.OwnerReferences == nil {
		t.Errorf("patch %s names neither what was decided on nor what it should be: %v", patch, err)
	}
}

func TestDecidePod(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(ago time.Duration) metav1.Time { return metav1.NewTime(now.Add(-ago)) }
	pod := func(began, ended time.Duration, code, signal int32) *corev1.Pod {
		p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent"}, {Name: "lifecycle-sidecar"}}}}
		started := at(began)
		p.Status.StartTime = &started
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Signal: signal, FinishedAt: at(ended)},
		}}}
		return p
	}
	running := pod(time.Hour, time.Minute, 42, 0)
	running.Status.ContainerStatuses[0].LastTerminationState, running.Status.ContainerStatuses[0].State =
		running.Status.ContainerStatuses[0].State, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	protected := func(value string) []lifecycle.ProtectionMark {
		return lifecycle.ProtectionMarks(nil, map[string]string{lifecycle.AnnotationDoNotReap: value})
	}
	alone := running.DeepCopy()
	alone.Spec.Containers = alone.Spec.Containers[:1]
	going := pod(time.Hour, time.Minute, 42, 0)
	going.DeletionTimestamp = &metav1.Time{Time: now}
	for name, tc := range map[string]struct {
		userType string
		pod      *corev1.Pod
		restart  bool
		wait     time.Duration
		marks    []lifecycle.ProtectionMark
	}{
		"protected":                      {"free", pod(time.Hour, time.Minute, 42, 0), true, 0, protected("true")},
		"protected, a moment ago":        {"free", pod(time.Hour, 4*time.Second, 42, 0), false, 6 * time.Second, protected("true")},
		"protected, and runs again":      {"free", running, false, 0, protected("true")},
		"not protected any more":         {"free", pod(time.Hour, time.Minute, 42, 0), false, 0, protected("false")},
		"idle: the sidecar asks":         {"free", pod(time.Hour, time.Minute, 42, 0), false, 0, nil},
		"idle for hours: it still asks":  {"free", pod(10*time.Hour, 9*time.Hour, 42, 0), false, 0, nil},
		"never shuts down":               {"enterprise", pod(time.Hour, time.Minute, 42, 0), true, 0, nil},
		"never shuts down, a moment ago": {"enterprise", pod(time.Hour, 4*time.Second, 42, 0), false, 6 * time.Second, nil},
		"ended too soon":                 {"free", pod(69*time.Second, time.Minute, 42, 0), true, 0, nil},
		"crashed":                        {"enterprise", pod(time.Hour, time.Minute, 1, 0), false, 0, nil},
		"killed":                         {"enterprise", pod(time.Hour, time.Minute, 42, 9), false, 0, nil},
		"runs again":                     {"enterprise", running, false, 0, nil},
		"runs again, without a sidecar":  {"enterprise", alone, false, 0, nil},
		"is going":                       {"enterprise", going, false, 0, nil},
		"nothing is known":               {"enterprise", &corev1.Pod{}, false, 0, nil},
	} {
		a := alice(t, tc.userType)
		a.protected = tc.marks
		got := decidePod(a, podOf(tc.pod), now)
		if got.restart != tc.restart || got.wait != tc.wait || got.restart != (got.reason != "") {
			t.Errorf("%s: got %+v, want restart %v, wait %s", name, got, tc.restart, tc.wait)
		}
	}
}

func TestPauses(t *testing.T) {
	p, now := pauses{}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second, 160 * time.Second, 5 * time.Minute, 5 * time.Minute} {
		if left := p.left("a", now); left != 0 {
			t.Fatalf("has to wait %s", left)
		}
		p.note("a", now)
		if got := p.left("a", now); got != want {
			t.Errorf("has to wait %s, want %s", got, want)
		}
		now = now.Add(want)
	}
	if p.left("b", now) != 0 {
		t.Error("another agent waits too")
	}
	now = now.Add(pauseReset)
	p.note("b", now)
	if len(p) != 1 {
		t.Errorf("quiet agents are remembered: %v", p)
	}
}

// TestTakeoverTime holds the promise that another replica does the work within 20 s of the leader's death: it sees the Lease
// run out at most one jittered retry late.
func TestTakeoverTime(t *testing.T) {
	worst := leaseDuration + time.Duration(float64(retryPeriod)*leaderelection.JitterFactor)
	if worst+retryPeriod > 20*time.Second {
		t.Errorf("a takeover takes %s", worst+retryPeriod)
	}
}
