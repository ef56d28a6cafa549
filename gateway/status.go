package gateway

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Status is what is known of a user's agent.
type Status struct {
	User       string             `json:"user"`
	Deployment string             `json:"deployment"`
	UserType   lifecycle.UserType `json:"userType,omitempty"`
	State      lifecycle.State    `json:"state"`

	// Since is from when on it has been in that state; zero where nobody knows.
	Since time.Time `json:"since,omitzero"`

	// Reason is for people.
	Reason string `json:"reason"`

	// Ready says whether a connection is delivered at once.
	Ready bool `json:"ready"`

	// Endpoint is where the agent's Service answers inside the cluster.
	Endpoint string `json:"endpoint,omitempty"`

	// Deadline is when the agent stops if nothing happens, once it has been warned.
	Deadline time.Time `json:"deadline,omitzero"`

	// Storage is none, kept (it outlives the agent) or temporary (it goes with the agent). Empty where it was not asked for.
	Storage string `json:"storage,omitempty"`
}

// saying is what an agent says of itself.
type saying struct {
	state    lifecycle.State
	since    time.Time
	deadline time.Time
}

// decide says how far an agent's life has come. d and pod are nil where there is none; said is zero where the agent says nothing.
func decide(d *appsv1.Deployment, pod *corev1.Pod, said saying) Status {
	if d == nil {
		return Status{State: lifecycle.Deleted, Reason: "there is no Deployment"}
	}
	s := Status{
		Deployment: d.Name, UserType: lifecycle.UserType(d.Labels[lifecycle.LabelUserType]), State: lifecycle.Created,
		Since: d.CreationTimestamp.UTC(),
	}
	if d.DeletionTimestamp != nil {
		s.State, s.Since, s.Reason = lifecycle.Shutdown, d.DeletionTimestamp.UTC(), "its Deployment is being deleted"
		return s
	}
	if pod == nil {
		s.Reason = "there is no Pod yet"
		if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			s.Reason = "its Deployment is scaled to 0"
		}
		return s
	}
	s.Since = pod.CreationTimestamp.UTC()
	if ended := endedIdle(pod); ended != nil {
		s.State, s.Since, s.Reason = lifecycle.Shutdown, ended.FinishedAt.UTC(), "it ended because it was idle"
		return s
	}
	if said.state == lifecycle.Shutdown && pod.DeletionTimestamp == nil && !terminated(pod) {
		// Whoever is delivered now is cut off in a moment, whether or not the kubelet knows it yet.
		s.State, s.Since, s.Reason = lifecycle.Shutdown, said.since, "it says that it is stopping"
		return s
	}
	ready := readyCondition(pod)
	if ready == nil || ready.Status != corev1.ConditionTrue || pod.DeletionTimestamp != nil {
		s.Reason = waitsFor(pod)
		return s
	}
	s.State, s.Since, s.Reason, s.Ready = lifecycle.Running, ready.LastTransitionTime.UTC(), "Pod "+pod.Name+" is ready", true
	switch said.state {
	case lifecycle.Running:
		s.Since, s.Reason = said.since, "it says that it is active"
	case lifecycle.Idle:
		s.State, s.Since, s.Reason, s.Deadline = lifecycle.Idle, said.since, "it says that it is idle", said.deadline
	}
	if s.State == lifecycle.Running {
		s.Deadline = said.deadline
	}
	return s
}

// endedIdle returns how the agent's container ended if it ended because it was idle and has not run since.
func endedIdle(pod *corev1.Pod) *corev1.ContainerStateTerminated {
	if !terminated(pod) || agentStatus(pod).State.Terminated.ExitCode != lifecycle.ExitIdle {
		return nil
	}
	return agentStatus(pod).State.Terminated
}

// terminated says whether the agent's container has ended and not been started again.
func terminated(pod *corev1.Pod) bool {
	s := agentStatus(pod)
	return s != nil && s.State.Terminated != nil
}

// restarts says how often the kubelet has started the agent again, as far as it says.
func restarts(pod *corev1.Pod) int32 {
	if s := agentStatus(pod); s != nil {
		return s.RestartCount
	}
	return 0
}

// agentStatus is what the kubelet says of the agent's container; nil if it says nothing.
func agentStatus(pod *corev1.Pod) *corev1.ContainerStatus {
	i, err := workload.AgentContainerOfPod(pod, "")
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

func readyCondition(pod *corev1.Pod) *corev1.PodCondition { return condition(pod, corev1.PodReady) }

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == kind {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

// serving says whether connections may be delivered to the Pod, as far as the kubelet knows.
func serving(pod *corev1.Pod) bool {
	ready := readyCondition(pod)
	return pod.DeletionTimestamp == nil && ready != nil && ready.Status == corev1.ConditionTrue && pod.Status.PodIP != "" && endedIdle(pod) == nil
}

// waitsFor says why a Pod is not ready.
func waitsFor(pod *corev1.Pod) string {
	if pod.DeletionTimestamp != nil {
		return "Pod " + pod.Name + " is being deleted"
	}
	if c := condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		return fmt.Sprintf("Pod %s is not scheduled: %s", pod.Name, c.Message)
	}
	for i := range pod.Status.ContainerStatuses {
		s := &pod.Status.ContainerStatuses[i]
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "":
			return fmt.Sprintf("Pod %s: container %s: %s", pod.Name, s.Name, s.State.Waiting.Reason)
		case s.State.Terminated != nil:
			return fmt.Sprintf("Pod %s: container %s ended with exit code %d", pod.Name, s.Name, s.State.Terminated.ExitCode)
		}
	}
	return "Pod " + pod.Name + " is not ready"
}
