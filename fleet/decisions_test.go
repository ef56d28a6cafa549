package fleet

import (
	"errors"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

func TestParseRate(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"1/s": time.Second, "10/m": 6 * time.Second, "100/h": 36 * time.Second, "1/h": time.Hour,
		"": 0, "10": 0, "0/m": 0, "-1/m": 0, "10/d": 0, "x/m": 0, "10/": 0, "1.5/m": 0, "10/m/s": 0, "99999999999/s": 0,
	} {
		got, err := ParseRate(s)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseRate(%q) is %s, %v, want %s", s, got, err, want)
		}
	}
}

// runningPod runs a container called agent in a state.
func runningPod(name string, state corev1.ContainerState) corev1.Pod {
	return corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent"}, {Name: lifecycle.SidecarContainer}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: lifecycle.SidecarContainer, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 42}}},
			{Name: "agent", State: state},
		}},
	}
}

// TestSeen: whoever is not known to be idle works.
func TestSeen(t *testing.T) {
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	says := func(state lifecycle.State, quiet time.Duration, keepers ...string) said {
		s := &idle.Status{State: state, LastActivity: idle.Activity{Source: "chat", At: now.Add(-quiet)}, KeptAliveBy: []idle.Keeper{}}
		for _, k := range keepers {
			s.KeptAliveBy = append(s.KeptAliveBy, idle.Keeper{Kind: k, ID: "x", Reason: "y"})
		}
		return said{status: s}
	}
	done := runningPod("done", runs)
	done.Status.Phase = corev1.PodSucceeded
	justEnded := says(lifecycle.Running, time.Hour)
	justEnded.status.KeptAliveBy = []idle.Keeper{{Kind: "activity", ID: "chat", Since: now.Add(-time.Minute)}}
	noWord := says(lifecycle.Running, 0)
	noWord.status.LastActivity = idle.Activity{}
	for _, tc := range []struct {
		name   string
		pods   []corev1.Pod
		answer said
		want   Work
		reason string
	}{
		{"no Pod", nil, said{}, Stopped, "nothing of it runs"},
		{"a finished Pod", []corev1.Pod{done}, said{}, Stopped, "nothing of it runs"},
		{"nobody asked", []corev1.Pod{runningPod("a", runs)}, said{}, Working, "Pod a was not asked whether it is idle"},
		{"no answer", []corev1.Pod{runningPod("a", runs)}, said{err: errors.New("refused")}, Working, "Pod a cannot be asked whether it is idle: refused"},
		{"nothing is known of the container", []corev1.Pod{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}, said{err: errors.New("refused")}, Working,
			"Pod a cannot be asked whether it is idle: refused"},
		{"idle", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Idle, time.Hour), IsIdle, "nothing keeps it, and it was last active 1h0m0s ago"},
		{"idle by its own measure", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Idle, time.Minute, "activity"), Working,
			`it was last active ("chat") 1m0s ago, which is less than 5m0s`},
		{"quiet for long", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, 5*time.Minute, "activity", "policy"), IsIdle,
			"nothing keeps it, and it was last active 5m0s ago"},
		{"quiet for not so long", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, 4*time.Minute, "activity"), Working,
			`it was last active ("chat") 4m0s ago, which is less than 5m0s`},
		{"a lease has just ended", []corev1.Pod{runningPod("a", runs)}, justEnded, Working,
			`it was last active ("chat") 1m0s ago, which is less than 5m0s`},
		{"activity in the future", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, -time.Hour), Working,
			`it was last active ("chat") -1h0m0s ago, which is less than 5m0s`},
		{"no time of activity", []corev1.Pod{runningPod("a", runs)}, noWord, Working,
			"it does not say when it was last active"},
		{"a trigger", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, time.Hour, "trigger"), Working, `it says that it works: trigger "x" ("y")`},
		{"a lease, idle all the same", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Idle, time.Hour, "lease"), Working, `it says that it works: lease "x" ("y")`},
		{"snoozed", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, time.Hour, "snooze"), Working, `it says that it works: snooze "x" ("y")`},
		{"something newer", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Running, time.Hour, "novelty"), Working, `it says that it works: novelty "x" ("y")`},
		{"stopping", []corev1.Pod{runningPod("a", runs)}, says(lifecycle.Shutdown, time.Hour), Working,
			`it says that it is "SHUTDOWN"; accepted are "IDLE" and "RUNNING"`},
		{"ended", []corev1.Pod{runningPod("a", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 42}})}, said{err: errors.New("x")}, Ended,
			"Pod a has ended with exit code 42, and goes"},
		{"crashed", []corev1.Pod{runningPod("a", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}})}, said{err: errors.New("x")}, Stopped,
			"the agent's container in Pod a does not run"},
		{"one of two works", []corev1.Pod{runningPod("b", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{}}), runningPod("a", runs)},
			said{err: errors.New("x")}, Working, "Pod a cannot be asked whether it is idle: x"},
	} {
		got := seen(tc.pods, map[string]said{"a": tc.answer}, 5*time.Minute, now)
		if got.Work != tc.want || got.Reason != tc.reason {
			t.Errorf("%s: %s, %q, want %s, %q", tc.name, got.Work, got.Reason, tc.want, tc.reason)
		}
	}
}

func TestMayRestart(t *testing.T) {
	for _, tc := range []struct {
		work                    Work
		onlyIdle, workingAsWell bool
	}{{Stopped, true, true}, {IsIdle, true, true}, {Working, false, true}, {Ended, false, false}} {
		for working, want := range map[bool]bool{false: tc.onlyIdle, true: tc.workingAsWell} {
			if ok, reason := mayRestart(Seen{Work: tc.work, Reason: "r"}, working); ok != want || ok != (reason == "") {
				t.Errorf("%s, working ones %t: %t %q, want %t", tc.work, working, ok, reason, want)
			}
		}
	}
}

func ready(change func(*appsv1.Deployment)) *appsv1.Deployment {
	d := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1}}
	change(d)
	return d
}

func TestHindrance(t *testing.T) {
	renewed := func(d *appsv1.Deployment) {
		d.Status.ReadyReplicas = 0
		d.Spec.Template.Annotations = map[string]string{lifecycle.AnnotationRenewedAt: "2026-05-06T07:07:09Z"}
	}
	for _, tc := range []struct {
		name           string
		change         func(*appsv1.Deployment)
		adopt, upgrade string
	}{
		{"ready", func(*appsv1.Deployment) {}, "", ""},
		{"scaled to 0", func(d *appsv1.Deployment) { d.Spec.Replicas, d.Status = new(int32(0)), appsv1.DeploymentStatus{} }, "", ""},
		{"paused", func(d *appsv1.Deployment) { d.Spec.Paused = true },
			"its rollouts are paused: kubectl rollout resume", "its rollouts are paused: kubectl rollout resume"},
		{"not ready", func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 0 },
			"it is not ready as it is: 0 of 1 replicas", "it is not ready as it is: 0 of 1 replicas"},
		{"no Pod was let in", func(d *appsv1.Deployment) { d.Status = appsv1.DeploymentStatus{} }, "", ""},
		{"not observed", func(d *appsv1.Deployment) { d.Generation = 2 },
			"it is not ready as it is: 1 of 1 replicas", "it is not ready as it is: 1 of 1 replicas"},
		{"an old Pod is left", func(d *appsv1.Deployment) { d.Status.Replicas = 2 },
			"it is not ready as it is: 1 of 1 replicas", "it is not ready as it is: 1 of 1 replicas"},
		{"not ready since an upgrade", renewed, "it is not ready as it is: 0 of 1 replicas", ""},
	} {
		if got := Adopt.hindrance(ready(tc.change)); got != tc.adopt {
			t.Errorf("%s: adopt: %q, want %q", tc.name, got, tc.adopt)
		}
		if got := Upgrade.hindrance(ready(tc.change)); got != tc.upgrade {
			t.Errorf("%s: upgrade: %q, want %q", tc.name, got, tc.upgrade)
		}
	}
}

func TestUnderWay(t *testing.T) {
	at := func(when string, readyReplicas int32) *appsv1.Deployment {
		return ready(func(d *appsv1.Deployment) {
			d.Status.ReadyReplicas = readyReplicas
			d.Spec.Template.Annotations = map[string]string{lifecycle.AnnotationRenewedAt: when}
		})
	}
	for _, tc := range []struct {
		name string
		d    *appsv1.Deployment
		want time.Duration
	}{
		{"never renewed", ready(func(d *appsv1.Deployment) { d.Status.ReadyReplicas = 0 }), 0},
		{"renewed a minute ago", at("2026-05-06T07:07:09Z", 0), 2 * time.Minute},
		{"renewed and ready", at("2026-05-06T07:07:09Z", 1), 0},
		{"renewed long ago", at("2026-05-05T07:07:09Z", 0), 0},
		{"who knows", at("now", 0), 0},
	} {
		if got := underWay(tc.d, 3*time.Minute, now); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestNeeds(t *testing.T) {
	today, next := judgeBy(t), newerSidecar(t)
	before, current := plain(good), injectedBy(keyed(today), plain(good))
	unready := func(d *appsv1.Deployment, ago time.Duration, reason string) *appsv1.Deployment {
		d = well(d.DeepCopy())
		askAnew(d, renewalTime(now.Add(-ago)))
		d.Status.ReadyReplicas = 0
		d.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Reason: reason}}
		return d
	}
	going := well(before.DeepCopy())
	going.DeletionTimestamp = &metav1.Time{Time: now}
	off := unready(current, time.Hour, "ProgressDeadlineExceeded")
	off.Spec.Replicas = new(int32(0))
	for _, tc := range []struct {
		name           string
		judge          *Judge
		d              *appsv1.Deployment
		adopt, upgrade need
	}{
		{"from before", today, well(before.DeepCopy()), renewal, nothing},
		{"from before, going", today, going, nothing, nothing},
		{"up to date", today, well(current.DeepCopy()), nothing, nothing},
		{"without the gateway's key", today, well(injectedBy(today, plain(good))), nothing, activityKey},
		{"older", next, well(current.DeepCopy()), nothing, renewal},
		{"just restarted", today, unready(current, time.Second, "ReplicaSetUpdated"), patience, patience},
		{"restarted and never ready", today, unready(current, time.Hour, "ProgressDeadlineExceeded"), help, help},
		{"restarted, nobody says how it went", today, unready(current, time.Hour, ""), help, help},
		{"restarted and never ready, older by now", next, unready(current, time.Hour, "ProgressDeadlineExceeded"), nothing, renewal},
		{"ready after its restart, and not now", today, unready(current, time.Hour, "NewReplicaSetAvailable"), nothing, nothing},
		{"scaled to 0 since", today, off, nothing, nothing},
	} {
		for mode, want := range map[Mode]need{Adopt: tc.adopt, Upgrade: tc.upgrade} {
			r := &Roll{Judge: tc.judge, Mode: mode, ReadyWithin: time.Minute, Now: func() time.Time { return now }}
			if got := r.needs(tc.d); got != want {
				t.Errorf("%s, mode %d: %d, want %d", tc.name, mode, got, want)
			}
		}
	}
}

func TestRenewalTime(t *testing.T) {
	if a, b := renewalTime(now), renewalTime(now.Add(time.Millisecond)); a == b {
		t.Errorf("two requests within a second both say %s", a)
	}
	d := ready(func(d *appsv1.Deployment) {
		d.Status.ReadyReplicas = 0
		askAnew(d, renewalTime(now))
	})
	if left := underWay(d, time.Minute, now.Add(time.Second)); left != 59*time.Second {
		t.Errorf("it is under way for %s, want 59s", left)
	}
}

func TestStepsAndTally(t *testing.T) {
	s := Step{Namespace: "n", Name: "a", Outcome: Refused, Reason: "denied:\n- rule: \x1b[1m", Changes: []string{"sidecar x is added"}}
	want := "n/a: refused: denied:\n  - rule: \\x1b[1m\n  sidecar x is added\n"
	if got := s.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for want, tally := range map[string]Tally{
		"nothing is to be done":             {},
		"2 done, 1 left out, 3 refused":     {Refused: 3, LeftOut: 1, Renewed: 2},
		"1 would be done, 1 gone, 1 failed": {Would: 1, Failed: 1, Vanished: 1},
	} {
		if got := tally.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// adopt names what would not start because it would not be process 1 any more.
func TestChangesNameAnInit(t *testing.T) {
	yes := true
	from := &appsv1.Deployment{}
	from.Spec.Template.Spec.Containers = []corev1.Container{{Name: "agent", Image: "lscr.io/linuxserver/webtop"}, {Name: "fine", Image: "agent"}}
	to := from.DeepCopy()
	to.Spec.Template.Spec.ShareProcessNamespace = &yes
	const want = "container agent: image lscr.io/linuxserver/webtop (s6-overlay) must be process 1, which will be another: it does not start like this"
	if got := Changes(from, to); !slices.Contains(got, want) {
		t.Errorf("%q, want among them %q", got, want)
	}
	if got := Changes(to, from); len(got) != 1 {
		t.Errorf("back: %q, want the namespace alone", got)
	}
}
