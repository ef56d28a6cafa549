package workload

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// AgentView is what is seen of one agent. Everything in it may be missing.
type AgentView struct {
	// Deployment is nil where there is none.
	Deployment *appsv1.Deployment

	// Pod is the one that serves the agent or is to, see PodBefore; nil where there is none.
	Pod *corev1.Pod

	// Manager is what the lifecycle manager in that Pod says.
	Manager ManagerReport

	// Deprovisioned is the value of lifecycle.AnnotationDeprovisioned on the namespace.
	Deprovisioned string
}

// ManagerReport is what an agent's lifecycle manager says of it. It is zero where the manager says nothing.
type ManagerReport struct {
	State lifecycle.State

	// Since is from when on the agent has been in that state.
	Since time.Time

	// Deadline is when the agent stops if nothing happens; zero where nothing stops it, or the manager has not said.
	Deadline time.Time
}

// AgentStatus is how far an agent's life has come. Every tool that shows an agent's state shows this one.
type AgentStatus struct {
	State lifecycle.State

	// Since is from when on it has been in that state; for an agent that is not ready, since when what Reason says
	// has been so. It is zero where nobody knows.
	Since time.Time

	// Problem is in a word or two why the agent does not run, such as CrashLoopBackOff or "scaled to 0". It is empty
	// for an agent that is as it should be.
	Problem string

	// Reason says why it is in that state, for people: for an agent that does not run in the words of the kubelet,
	// the scheduler or the Deployment's controller.
	Reason string

	// StopsAt is when it stops if nothing happens; zero where nothing stops it, or nobody knows.
	StopsAt time.Time

	// Ready says whether its Pod is ready and its manager takes new work.
	Ready bool
}

// AgentStatusOf decides an agent's state. What the kubelet says counts more than what the agent's manager says, which
// is the agent's own word.
func AgentStatusOf(view AgentView) AgentStatus {
	d, pod := view.Deployment, view.Pod
	switch {
	case d == nil:
		return AgentStatus{State: lifecycle.Deleted, Reason: "there is no Deployment"}
	case d.DeletionTimestamp != nil:
		return AgentStatus{State: lifecycle.Shutdown, Since: d.DeletionTimestamp.UTC(), Reason: "its Deployment is being deleted"}
	case pod == nil || pod.DeletionTimestamp != nil && !isIdle(pod):
		if status, stopped := stoppedStatus(&view); stopped {
			return status
		}
	}
	if pod == nil {
		return withoutPod(d)
	}
	if isIdle(pod) {
		ended := AgentContainerStatus(pod).State.Terminated
		return AgentStatus{State: lifecycle.Shutdown, Since: ended.FinishedAt.UTC(), Reason: "it ended because it was idle"}
	}
	if view.Manager.State == lifecycle.Shutdown && pod.DeletionTimestamp == nil && !AgentTerminated(pod) {
		// A request that is delivered now is cut off in a moment, whether or not the kubelet knows it yet.
		return AgentStatus{State: lifecycle.Shutdown, Since: view.Manager.Since, Reason: "it says that it is stopping"}
	}
	ready := PodCondition(pod, corev1.PodReady)
	if ready == nil || ready.Status != corev1.ConditionTrue || pod.DeletionTimestamp != nil {
		p := podProblem(pod)
		return AgentStatus{State: lifecycle.Created, Since: p.since, Problem: p.brief, Reason: p.reason}
	}
	s := AgentStatus{
		State: lifecycle.Running, Since: ready.LastTransitionTime.UTC(), Reason: "Pod " + pod.Name + " is ready",
		StopsAt: view.Manager.Deadline, Ready: true,
	}
	switch view.Manager.State {
	case lifecycle.Running:
		s.Since, s.Reason = view.Manager.Since, "it says that it is active"
	case lifecycle.Idle:
		s.State, s.Since, s.Reason = lifecycle.Idle, view.Manager.Since, "it says that it is idle, and has been warned"
	default:
	}
	return s
}

// stoppedStatus is that of an agent that wants no Pod, or to which admission or a quota gives none.
func stoppedStatus(view *AgentView) (status AgentStatus, stopped bool) {
	d := view.Deployment
	if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
		s := AgentStatus{
			State: lifecycle.Created, Since: replicasSince(d.ManagedFields), Problem: "scaled to 0", Reason: "its Deployment is scaled to 0",
		}
		if since, by, marked := ParseDeprovisioned(view.Deprovisioned); marked {
			if !since.IsZero() {
				s.Since = since
			}
			s.Problem = "deprovisioned"
			s.Reason = fmt.Sprintf("its namespace was deprovisioned by %s, and its Deployment is scaled to 0", by)
		}
		return s, true
	}
	if c := DeploymentCondition(d, appsv1.DeploymentReplicaFailure); c != nil && c.Status == corev1.ConditionTrue {
		return AgentStatus{
			State: lifecycle.Created, Since: c.LastTransitionTime.UTC(), Problem: c.Reason, Reason: bounded("its Pod cannot be made: " + c.Message),
		}, true
	}
	return AgentStatus{}, false
}

// withoutPod is the status of an agent whose Pod is still to be made.
func withoutPod(d *appsv1.Deployment) AgentStatus {
	s := AgentStatus{State: lifecycle.Created, Since: d.CreationTimestamp.UTC(), Reason: "there is no Pod yet"}
	if d.Spec.Paused {
		s.Problem, s.Reason = "paused", "there is no Pod, and rollouts of its Deployment are paused"
	}
	return s
}

// PodBefore says whether a Pod counts rather than another one of the same agent: one that stays before one that goes,
// one that has not come to its end before one that has, and else the younger one.
func PodBefore(a, b *corev1.Pod) bool {
	if (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) {
		return a.DeletionTimestamp == nil
	}
	if ended := hasEnded(a); ended != hasEnded(b) {
		return !ended
	}
	return b.CreationTimestamp.Before(&a.CreationTimestamp)
}

func hasEnded(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// AgentContainerStatus returns what the kubelet says of the agent's container; nil if it says nothing.
func AgentContainerStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	i, err := AgentContainerOfPod(pod, "")
	if err != nil {
		return nil
	}
	for j := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[j]; s.Name == pod.Spec.Containers[i].Name {
			return s
		}
	}
	return nil
}

// AgentTerminated says whether the agent's container has ended and has not been started again.
func AgentTerminated(pod *corev1.Pod) bool {
	s := AgentContainerStatus(pod)
	return s != nil && s.State.Terminated != nil
}

// EndedIdle says whether a container ended because the agent was idle. A signal is never idleness, whatever number it
// leaves.
func EndedIdle(t *corev1.ContainerStateTerminated) bool {
	return t != nil && t.ExitCode == lifecycle.ExitIdle && t.Signal == 0
}

// isIdle says whether the agent in a Pod has ended because it was idle and has not been started again.
func isIdle(pod *corev1.Pod) bool {
	return AgentTerminated(pod) && EndedIdle(AgentContainerStatus(pod).State.Terminated)
}

// PodCondition returns a condition of a Pod; nil if it has none of that type.
func PodCondition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// DeploymentCondition returns a condition of a Deployment; nil if it has none of that type.
func DeploymentCondition(d *appsv1.Deployment, kind appsv1.DeploymentConditionType) *appsv1.DeploymentCondition {
	for i := range d.Status.Conditions {
		if d.Status.Conditions[i].Type == kind {
			return &d.Status.Conditions[i]
		}
	}
	return nil
}
