package workload

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// at is a time by its minute.
func at(minute int) metav1.Time {
	return metav1.NewTime(time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC))
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func terminated(code int32, reason string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: reason, FinishedAt: at(5)}}
}

// TestAgentStatusOf has an agent in every state, and broken in every way that the kubelet, the scheduler and the
// Deployment's controller tell of.
func TestAgentStatusOf(t *testing.T) {
	type view struct {
		d    *appsv1.Deployment
		pod  *corev1.Pod
		says ManagerReport
	}
	deployed := func(change func(*view)) AgentView {
		v := view{
			d: &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "ada", CreationTimestamp: at(1)}},
			pod: &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: at(2)},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: lifecycle.SidecarContainer}, {Name: "agent"}}},
				Status: corev1.PodStatus{
					Phase:             corev1.PodRunning,
					Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at(3)}},
					ContainerStatuses: []corev1.ContainerStatus{{Name: lifecycle.SidecarContainer, Ready: true}, {Name: "agent"}},
				},
			},
		}
		if change != nil {
			change(&v)
		}
		return AgentView{Deployment: v.d, Pod: v.pod, Manager: v.says}
	}
	unready := func(change func(*corev1.PodStatus)) func(*view) {
		return func(v *view) {
			v.pod.Status.Conditions[0].Status, v.pod.Status.Conditions[0].LastTransitionTime = corev1.ConditionFalse, at(4)
			change(&v.pod.Status)
		}
	}
	agent := func(state, last corev1.ContainerState, restarts int32) func(*view) {
		return unready(func(s *corev1.PodStatus) {
			s.ContainerStatuses[1].State, s.ContainerStatuses[1].LastTerminationState, s.ContainerStatuses[1].RestartCount = state, last, restarts
		})
	}
	says := func(state lifecycle.State, deadline int) func(*view) {
		return func(v *view) { v.says = ManagerReport{State: state, Since: at(6).Time, Deadline: at(deadline).Time} }
	}
	scaled := func(v *view) {
		v.pod, v.d.Spec.Replicas = nil, new(int32(0))
		v.d.ManagedFields = []metav1.ManagedFieldsEntry{
			{Manager: "kubectl", Time: new(at(9)), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:template":{}}}`)},
			{Manager: "scaler", Subresource: "scale", Time: new(at(8)), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{}}}`)},
			{Manager: "controller", Subresource: "status", Time: new(at(9)), FieldsV1: metav1.NewFieldsV1(`{"f:status":{"f:replicas":{}}}`)},
		}
	}
	deprovisioned := deployed(scaled)
	deprovisioned.Deprovisioned = "2026-01-02T03:07:00Z alice"
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	for _, tc := range []struct {
		name    string
		view    AgentView
		state   lifecycle.State
		since   int // minutes; 0: unknown
		problem string
		reason  string
		stopsAt int // minutes; 0: unknown
	}{
		{"no Deployment", AgentView{}, lifecycle.Deleted, 0, "", "there is no Deployment", 0},
		{"no Deployment, but a Pod", AgentView{Pod: deployed(nil).Pod}, lifecycle.Deleted, 0, "", "there is no Deployment", 0},
		{"being deleted", deployed(func(v *view) { v.d.DeletionTimestamp = new(at(7)) }), lifecycle.Shutdown, 7, "", "its Deployment is being deleted", 0},
		{"just made", deployed(func(v *view) { v.pod = nil }), lifecycle.Created, 1, "", "there is no Pod yet", 0},
		{"paused without a Pod", deployed(func(v *view) { v.pod, v.d.Spec.Paused = nil, true }), lifecycle.Created, 1, "paused",
			"there is no Pod, and rollouts of its Deployment are paused", 0},
		{"ready, and says nothing", deployed(nil), lifecycle.Running, 3, "", "Pod p is ready", 0},
		{"says that it runs", deployed(says(lifecycle.Running, 20)), lifecycle.Running, 6, "", "it says that it is active", 20},
		{"warned", deployed(says(lifecycle.Idle, 20)), lifecycle.Idle, 6, "", "it says that it is idle, and has been warned", 20},
		{"says that it stops", deployed(says(lifecycle.Shutdown, 20)), lifecycle.Shutdown, 6, "", "it says that it is stopping", 0},
		{"says what no manager says", deployed(says("NOVEL", 20)), lifecycle.Running, 3, "", "Pod p is ready", 20},
		{"ended with 42", deployed(agent(terminated(42, "Error"), corev1.ContainerState{}, 0)), lifecycle.Shutdown, 5, "", "it ended because it was idle", 0},
		{"killed by signal 42", deployed(unready(func(s *corev1.PodStatus) {
			s.ContainerStatuses[1].State = terminated(42, "Error")
			s.ContainerStatuses[1].State.Terminated.Signal = 42
		})), lifecycle.Created, 4, "exit code 42", "Pod p: container agent: it ended with exit code 42", 0},
		{"scaled to 0", deployed(scaled), lifecycle.Created, 8, "scaled to 0", "its Deployment is scaled to 0", 0},
		{"deprovisioned", deprovisioned, lifecycle.Created, 7, "deprovisioned", "its namespace was deprovisioned by alice, and its Deployment is scaled to 0", 0},
		{"scaled to 0, its Pod on its way out", deployed(func(v *view) {
			pod := v.pod
			scaled(v)
			v.pod, pod.DeletionTimestamp = pod, new(at(9))
		}), lifecycle.Created, 8, "scaled to 0", "its Deployment is scaled to 0", 0},
		{"its Pod is refused", deployed(func(v *view) {
			v.pod = nil
			v.d.Status.Conditions = []appsv1.DeploymentCondition{{
				Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Reason: "FailedCreate", Message: "exceeded quota", LastTransitionTime: at(7),
			}}
		}), lifecycle.Created, 7, "FailedCreate", "its Pod cannot be made: exceeded quota", 0},
		{"its Pod goes", deployed(func(v *view) { v.pod.DeletionTimestamp = new(at(7)) }), lifecycle.Created, 7, "Terminating", "Pod p is being deleted", 0},
		{"evicted", deployed(unready(func(s *corev1.PodStatus) { s.Phase, s.Reason, s.Message = corev1.PodFailed, "Evicted", "low on memory" })),
			lifecycle.Created, 4, "Evicted", "Pod p has ended: Evicted: low on memory", 0},
		{"no node", deployed(unready(func(s *corev1.PodStatus) {
			s.Phase, s.ContainerStatuses = corev1.PodPending, nil
			s.Conditions = []corev1.PodCondition{{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available", LastTransitionTime: at(2),
			}}
		})), lifecycle.Created, 2, "Unschedulable", "Pod p is not scheduled: Unschedulable: 0/3 nodes are available", 0},
		{"no image", deployed(agent(waiting("ImagePullBackOff", `Back-off pulling image "x"`), corev1.ContainerState{}, 0)), lifecycle.Created, 4,
			"ImagePullBackOff", `Pod p: container agent: ImagePullBackOff: Back-off pulling image "x"`, 0},
		{"crashes again and again", deployed(agent(waiting("CrashLoopBackOff", "back-off 5m0s"), terminated(1, "Error"), 12)), lifecycle.Created, 4,
			"CrashLoopBackOff (exit code 1)",
			"Pod p: container agent: CrashLoopBackOff: back-off 5m0s; it was started again 12 times, and last ended with exit code 1 at 2026-01-02T03:05:00Z", 0},
		{"out of memory again and again", deployed(agent(waiting("CrashLoopBackOff", "back-off 5m0s"), terminated(137, "OOMKilled"), 1)), lifecycle.Created, 4,
			"CrashLoopBackOff (OOMKilled, exit code 137)",
			"Pod p: container agent: CrashLoopBackOff: back-off 5m0s; it was started again once, and last ended with OOMKilled, exit code 137 at 2026-01-02T03:05:00Z", 0},
		{"out of memory just now", deployed(agent(terminated(137, "OOMKilled"), corev1.ContainerState{}, 0)), lifecycle.Created, 4, "OOMKilled, exit code 137",
			"Pod p: container agent: it ended with OOMKilled, exit code 137", 0},
		{"up again after that, and not ready", deployed(agent(running, terminated(137, "OOMKilled"), 3)), lifecycle.Created, 4, "not ready (OOMKilled, exit code 137)",
			"Pod p: container agent: it runs and is not ready; it was started again 3 times, and last ended with OOMKilled, exit code 137 at 2026-01-02T03:05:00Z", 0},
		{"ended with 0", deployed(agent(terminated(0, "Completed"), corev1.ContainerState{}, 0)), lifecycle.Created, 4, "exit code 0",
			"Pod p: container agent: it ended with exit code 0", 0},
		{"never ready", deployed(agent(running, corev1.ContainerState{}, 0)), lifecycle.Created, 4, "not ready", "Pod p: container agent: it runs and is not ready", 0},
		{"starting", deployed(agent(waiting("ContainerCreating", ""), corev1.ContainerState{}, 0)), lifecycle.Created, 4, "ContainerCreating",
			"Pod p: container agent: ContainerCreating", 0},
		{"an init container fails", deployed(unready(func(s *corev1.PodStatus) {
			s.ContainerStatuses[0].State, s.ContainerStatuses[1].State = waiting("PodInitializing", ""), waiting("PodInitializing", "")
			s.InitContainerStatuses = []corev1.ContainerStatus{{Name: "clone", State: terminated(128, "Error")}}
		})), lifecycle.Created, 4, "exit code 128", "Pod p: container clone: it ended with exit code 128", 0},
		{"another container has no image", deployed(unready(func(s *corev1.PodStatus) {
			s.ContainerStatuses[0].State, s.ContainerStatuses[1].State = waiting("ErrImagePull", "no such host"), running
		})), lifecycle.Created, 4, "ErrImagePull", "Pod p: container lifecycle-sidecar: ErrImagePull: no such host", 0},
		{"its node is away", deployed(unready(func(s *corev1.PodStatus) {
			s.Conditions[0].Reason, s.ContainerStatuses[1].Ready = "NodeNotReady", true
		})), lifecycle.Created, 4, "not ready", "Pod p is not ready: NodeNotReady", 0},
		{"the kubelet says nothing", deployed(unready(func(s *corev1.PodStatus) { s.ContainerStatuses = nil })), lifecycle.Created, 4, "not ready", "Pod p is not ready", 0},
		{"not ready, whatever it says", deployed(func(v *view) {
			agent(running, corev1.ContainerState{}, 0)(v)
			says(lifecycle.Idle, 20)(v)
		}), lifecycle.Created, 4, "not ready", "Pod p: container agent: it runs and is not ready", 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := AgentStatusOf(tc.view)
			minute := func(t time.Time) int {
				if t.IsZero() {
					return 0
				}
				return t.Minute()
			}
			if s.State != tc.state || minute(s.Since) != tc.since || s.Problem != tc.problem || s.Reason != tc.reason || minute(s.StopsAt) != tc.stopsAt {
				t.Errorf("%s since %d, problem %q, reason %q, stops at %d\nwant %s since %d, problem %q, reason %q, stops at %d", s.State, minute(s.Since),
					s.Problem, s.Reason, minute(s.StopsAt), tc.state, tc.since, tc.problem, tc.reason, tc.stopsAt)
			}
			if ready := tc.state == lifecycle.Running || tc.state == lifecycle.Idle; s.Ready != ready {
				t.Errorf("ready is %t", s.Ready)
			}
		})
	}
}

// TestLongReason: what a registry says of an image that it lacks can be as long as it likes.
func TestLongReason(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
		{Name: "agent", State: waiting("ErrImagePull", strings.Repeat("ü", 4000))},
	}}}
	reason := AgentStatusOf(AgentView{Deployment: &appsv1.Deployment{}, Pod: pod}).Reason
	if len(reason) > maxReason || !strings.HasSuffix(reason, "ü…") {
		t.Errorf("%d bytes: …%q", len(reason), reason[len(reason)-10:])
	}
}

func TestPodBefore(t *testing.T) {
	pod := func(born int, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(born)}}
		if change != nil {
			change(p)
		}
		return p
	}
	going := func(p *corev1.Pod) { p.DeletionTimestamp = new(at(9)) }
	failed := func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }
	for name, tc := range map[string]struct{ first, second *corev1.Pod }{
		"the younger one":          {pod(2, nil), pod(1, nil)},
		"one that stays":           {pod(1, nil), pod(2, going)},
		"one that has not ended":   {pod(1, nil), pod(2, failed)},
		"one that ended and stays": {pod(1, failed), pod(2, going)},
	} {
		if !PodBefore(tc.first, tc.second) || PodBefore(tc.second, tc.first) {
			t.Errorf("%s is not first", name)
		}
	}
}

func TestIdentifyingManagers(t *testing.T) {
	entries := []metav1.ManagedFieldsEntry{
		{Manager: "a", FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:template":{}}}`)},
		{Manager: "b", Operation: "Apply", Time: new(at(1)), FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:replicas":{},"f:template":{"f:spec":{}}}}`)},
		{Manager: "c", FieldsV1: metav1.NewFieldsV1(`no JSON`)},
		{Manager: "d"},
	}
	kept := IdentifyingManagers(entries)
	if len(kept) != 1 || len(kept[0].FieldsV1.GetRawBytes()) > 40 {
		t.Errorf("%+v", kept)
	}
	for _, of := range [][]metav1.ManagedFieldsEntry{entries, kept} {
		if w := ReplicasWriters(of); len(w) != 1 || w[0].Manager != "b" || !w[0].Time.Equal(at(1).Time) {
			t.Errorf("%+v", w)
		}
	}
}
