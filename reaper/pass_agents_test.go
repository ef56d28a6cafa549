package reaper

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// newYear is when tests take place.
var newYear = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// endedPod is a Pod of alice's whose agent ended with 42 some time ago, after an hour.
func endedPod(ago time.Duration) *corev1.Pod {
	began, ended := metav1.NewTime(newYear.Add(-ago-time.Hour)), metav1.NewTime(newYear.Add(-ago))
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dexorder-agents", Name: "alice-1", UID: "9d", Labels: map[string]string{key: "alice"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent"}, {Name: lifecycle.SidecarContainer}}},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &began,
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{ExitCode: lifecycle.ExitIdle, StartedAt: began, FinishedAt: ended},
			}}},
		},
	}
}

func TestDecideForgotten(t *testing.T) {
	state := func(p *corev1.Pod) *corev1.ContainerState { return &p.Status.ContainerStatuses[0].State }
	withoutSidecar := func(_ *agent, p *corev1.Pod) { p.Spec.Containers = p.Spec.Containers[:1] }
	protected := func(annotation, value string) func(*agent, *corev1.Pod) {
		return func(a *agent, _ *corev1.Pod) {
			a.protected = lifecycle.ProtectionMarks(nil, map[string]string{annotation: value})
		}
	}
	protectedByLabel := func(a *agent, _ *corev1.Pod) {
		a.protected = recordOf(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{lifecycle.AnnotationDoNotReap: "true"}}}).id().protected
	}
	for name, tc := range map[string]struct {
		userType string
		ago      time.Duration
		change   func(*agent, *corev1.Pod)
		want     string // why it is kept; "" if it goes
	}{
		"ended long ago":               {"free", time.Hour, nil, ""},
		"ended just long enough ago":   {"free", 2 * time.Minute, nil, ""},
		"anonymous":                    {"anonymous", time.Hour, nil, ""},
		"its sidecar has time yet":     {"free", 2*time.Minute - time.Second, nil, "its sidecar has some time to do it"},
		"without a sidecar it is now":  {"free", 0, withoutSidecar, ""},
		"enterprise":                   {"enterprise", time.Hour, nil, "its user type never shuts down"},
		"enterprise without a sidecar": {"enterprise", time.Hour, withoutSidecar, "its user type never shuts down"},
		"too young, in a Pod that waited long for its image": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			state(p).Terminated.StartedAt = metav1.NewTime(state(p).Terminated.FinishedAt.Add(-9 * time.Second))
		}, "it had not run for long enough to be idle"},
		"too young, as far as is known": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			state(p).Terminated.StartedAt = metav1.Time{}
			p.Status.StartTime = &metav1.Time{Time: state(p).Terminated.FinishedAt.Add(-9 * time.Second)}
		}, "it had not run for long enough to be idle"},
		"ended at no time": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			state(p).Terminated.FinishedAt = metav1.Time{}
		}, "it had not run for long enough to be idle"},
		"ended in the future": {"free", -time.Second, withoutSidecar, "it ended in the future"},
		"runs again":          {"free", time.Hour, runsAgain, "it is not dead with 42"},
		"waits to run again":  {"free", time.Hour, waitsAgain, "it is not dead with 42"},
		"runs again without a sidecar: its manager holds": {"free", 50 * time.Second, func(a *agent, p *corev1.Pod) {
			withoutSidecar(a, p)
			runsAgain(a, p)
		}, ""},
		"waits to run again without a sidecar": {"free", 50 * time.Second, func(a *agent, p *corev1.Pod) {
			withoutSidecar(a, p)
			waitsAgain(a, p)
		}, ""},
		"runs again without a sidecar since long ago": {"free", 61 * time.Second, func(a *agent, p *corev1.Pod) {
			withoutSidecar(a, p)
			runsAgain(a, p)
		}, "it was started again, and its exit is too long ago to count"},
		"crashed":                 {"free", time.Hour, func(_ *agent, p *corev1.Pod) { state(p).Terminated.ExitCode = 1 }, "it is not dead with 42"},
		"killed by a signal":      {"free", time.Hour, func(_ *agent, p *corev1.Pod) { state(p).Terminated.Signal = 9 }, "it is not dead with 42"},
		"its status is not known": {"free", time.Hour, func(_ *agent, p *corev1.Pod) { p.Status.ContainerStatuses = nil }, "it is not dead with 42"},
		"another container ended": {"free", time.Hour, func(_ *agent, p *corev1.Pod) { p.Status.ContainerStatuses[0].Name = "lifecycle-sidecar" }, "it is not dead with 42"},
		"it is not clear which container it is": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			p.Spec.Containers[0].Name = "a"
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "b"})
		}, "it is not dead with 42"},
		"behind a mesh's container, by the system's mount": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			meshed(p)
			p.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir}}
		}, ""},
		"behind a mesh's container, by annotation": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			meshed(p)
			p.Annotations = map[string]string{lifecycle.AnnotationAgentContainer: "web"}
		}, ""},
		"its Pod is being deleted": {"free", time.Hour, func(_ *agent, p *corev1.Pod) {
			p.DeletionTimestamp = &metav1.Time{Time: newYear}
		}, "its Pod is being deleted"},
		"protected":                {"free", time.Hour, protected(lifecycle.AnnotationDoNotReap, "true"), "it is protected"},
		"protected by a label":     {"free", time.Hour, protectedByLabel, "it is protected"},
		"not protected any more":   {"free", time.Hour, protected(lifecycle.AnnotationDoNotReap, "false"), ""},
		"protected until tomorrow": {"free", time.Hour, protected(lifecycle.AnnotationDoNotReapUntil, "2026-01-03T00:00:00Z"), "it is protected"},
		"protected until now":      {"free", time.Hour, protected(lifecycle.AnnotationDoNotReapUntil, "2026-01-02T12:00:00Z"), ""},
		"protected in other words": {"free", time.Hour, protected(lifecycle.AnnotationDoNotReapUntil, "christmas"), "it is protected"},
		"policy gives sidecars longer": {"free", time.Hour, func(a *agent, _ *corev1.Pod) {
			a.policy.Reaper.Agents.After = metav1.Duration{Duration: 2 * time.Hour}
		}, "its sidecar has some time to do it"},
		"tier does not shut down": {"free", time.Hour, func(a *agent, _ *corev1.Pod) { a.tier.Shutdown = v1alpha1.ShutdownNever }, "its user type never shuts down"},
	} {
		a, p := alice(t, tc.userType), endedPod(tc.ago)
		if tc.change != nil {
			tc.change(a, p)
		}
		goes, reason := decideForgotten(a, podOf(p), newYear)
		if goes != (tc.want == "") || !goes && reason != tc.want {
			t.Errorf("%s: goes %t, %q; want %q", name, goes, reason, tc.want)
		}
	}
}

// meshed gives the agent's container another name, and puts one of a service mesh before it.
func meshed(p *corev1.Pod) {
	p.Spec.Containers[0].Name, p.Status.ContainerStatuses[0].Name = "web", "web"
	p.Spec.Containers = append([]corev1.Container{{Name: "mesh-proxy"}}, p.Spec.Containers...)
}

func runsAgain(_ *agent, p *corev1.Pod) {
	s := &p.Status.ContainerStatuses[0]
	s.LastTerminationState, s.State = s.State, corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
}

func waitsAgain(_ *agent, p *corev1.Pod) {
	s := &p.Status.ContainerStatuses[0]
	s.LastTerminationState = s.State
	s.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
}
