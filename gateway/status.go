package gateway

import (
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

	// Since is from when on it has been in that state, and for an agent that does not run, from when on Reason has
	// been so; zero where nobody knows.
	Since time.Time `json:"since,omitzero"`

	// Problem is in a word or two why the agent does not run, as workload.AgentStatus has it; empty where it is as it
	// should be.
	Problem string `json:"problem,omitempty"`

	// Reason is for people.
	Reason string `json:"reason"`

	// Ready says whether a connection is delivered at once.
	Ready bool `json:"ready"`

	// Endpoint is where the agent's Service answers inside the cluster.
	Endpoint string `json:"endpoint,omitempty"`

	// Deadline is when the agent stops if nothing happens, once it has been warned.
	Deadline time.Time `json:"deadline,omitzero"`

	// Stays says why the agent is not deleted when it is idle: its Deployment is protected, or agents of its user
	// type never stop. It is empty for one that goes, and where it was not asked for.
	Stays string `json:"stays,omitempty"`

	// Storage is none, kept (it outlives the agent) or temporary (it goes with the agent). Empty where it was not asked for.
	Storage string `json:"storage,omitempty"`
}

// saying is what an agent says of itself.
type saying struct {
	state    lifecycle.State
	since    time.Time
	deadline time.Time
}

// statusOf is what is known of an agent by its Deployment and Pod, which are nil where there is none, and by what it
// says of itself, which is zero where it says nothing.
func statusOf(d *appsv1.Deployment, pod *corev1.Pod, said saying) Status {
	decided := workload.AgentStatusOf(workload.AgentView{
		Deployment: d, Pod: pod, Manager: workload.ManagerReport{State: said.state, Since: said.since, Deadline: said.deadline},
	})
	s := Status{
		State: decided.State, Since: decided.Since, Problem: decided.Problem, Reason: decided.Reason, Ready: decided.Ready, Deadline: decided.StopsAt,
	}
	if d != nil {
		s.Deployment, s.UserType = d.Name, lifecycle.UserType(d.Labels[lifecycle.LabelUserType])
	}
	return s
}

// restarts says how often the kubelet has started the agent again, as far as it says.
func restarts(pod *corev1.Pod) int32 {
	if s := workload.AgentContainerStatus(pod); s != nil {
		return s.RestartCount
	}
	return 0
}

// endedIdle says whether the agent's container ended because it was idle and has not run since.
func endedIdle(pod *corev1.Pod) bool {
	s := workload.AgentContainerStatus(pod)
	return s != nil && workload.EndedIdle(s.State.Terminated)
}

// serving says whether connections may be delivered to the Pod, as far as the kubelet knows.
func serving(pod *corev1.Pod) bool {
	ready := workload.PodCondition(pod, corev1.PodReady)
	return pod.DeletionTimestamp == nil && ready != nil && ready.Status == corev1.ConditionTrue && pod.Status.PodIP != "" && !endedIdle(pod)
}
