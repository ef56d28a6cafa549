package fleet

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Work is what an agent is taken to do, as seen from outside.
type Work string

// The values of Work.
const (
	// Stopped: nothing runs that a restart could interrupt.
	Stopped Work = "stopped"

	// IsIdle: the agent says so.
	IsIdle Work = "idle"

	// Ended: it ended because it was idle, and its deletion is under way.
	Ended Work = "ended"

	// Working: it says so, or says nothing that could be read.
	Working Work = "working"
)

// Seen is what is seen of an agent.
type Seen struct {
	Work Work

	// Reason is for people.
	Reason string

	// Since is from when on it has been idle or working, as it says; zero where it does not say.
	Since time.Time
}

// said is the answer of an agent's lifecycle manager, or why there is none.
type said struct {
	status *idle.Status
	err    error
}

// seen judges the Pods of an agent by what the lifecycle manager of each says. Whoever is not known to be idle works.
func seen(pods []corev1.Pod, answers map[string]said, idleFor time.Duration, now time.Time) Seen {
	result := Seen{Work: Stopped, Reason: "nothing of it runs"}
	for i := range pods {
		pod := &pods[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		s := seenPod(pod, answers[pod.Name], idleFor, now)
		if s.Work == Working {
			return s
		}
		if s.Work == Ended || result.Work != Ended {
			result = s
		}
	}
	return result
}

func seenPod(pod *corev1.Pod, answer said, idleFor time.Duration, now time.Time) Seen {
	state := agentState(pod)
	switch {
	case state == nil:
	case workload.EndedIdle(state.Terminated):
		return Seen{Work: Ended, Reason: fmt.Sprintf("Pod %s has ended with exit code %d, and goes", pod.Name, lifecycle.ExitIdle)}
	case state.Running == nil && (state.Waiting != nil || state.Terminated != nil):
		return Seen{Work: Stopped, Reason: fmt.Sprintf("the agent's container in Pod %s does not run", pod.Name)}
	}
	status := answer.status
	switch {
	case answer.err != nil:
		return Seen{Work: Working, Reason: fmt.Sprintf("Pod %s cannot be asked whether it is idle: %v", pod.Name, answer.err)}
	case status == nil:
		return Seen{Work: Working, Reason: fmt.Sprintf("Pod %s was not asked whether it is idle", pod.Name)}
	}
	// The end of what kept it alive counts as its last activity does.
	quietSince := status.LastActivity.At
	for _, keeper := range status.KeptAliveBy {
		switch keeper.Kind {
		case "activity":
			if keeper.Since.After(quietSince) {
				quietSince = keeper.Since
			}
		case "policy": // it never stops by itself, which says nothing of now
		default:
			reason := fmt.Sprintf("it says that it works: %s %q", keeper.Kind, keeper.ID)
			if keeper.Reason != "" {
				reason += fmt.Sprintf(" (%q)", keeper.Reason)
			}
			return Seen{Work: Working, Reason: reason, Since: keeper.Since}
		}
	}
	switch quiet := now.Sub(quietSince); {
	case status.State != lifecycle.Idle && status.State != lifecycle.Running:
		return Seen{Work: Working, Reason: fmt.Sprintf("it says that it is %q; accepted are %q and %q", status.State, lifecycle.Idle, lifecycle.Running)}
	case quietSince.IsZero():
		return Seen{Work: Working, Reason: "it does not say when it was last active"}
	case quiet < idleFor:
		return Seen{
			Work: Working, Since: quietSince,
			Reason: fmt.Sprintf("it was last active (%q) %s ago, which is less than %s", status.LastActivity.Source, quiet.Round(time.Second), idleFor),
		}
	default:
		return Seen{
			Work: IsIdle, Since: quietSince,
			Reason: fmt.Sprintf("nothing keeps it, and it was last active %s ago", quiet.Round(time.Second)),
		}
	}
}

// agentState returns what the kubelet says of the agent's container; nil if nothing.
func agentState(pod *corev1.Pod) *corev1.ContainerState {
	if s := workload.AgentContainerStatus(pod); s != nil {
		return &s.State
	}
	return nil
}

// reported is what an agent's state is decided by; zero where there is no answer.
func reported(status *idle.Status) workload.ManagerReport {
	if status == nil {
		return workload.ManagerReport{}
	}
	r := workload.ManagerReport{State: status.State, Since: status.Since}
	if status.Deadline != nil {
		r.Deadline = *status.Deadline
	}
	return r
}

// keptBy says what keeps an agent alive, by its lifecycle manager, for people: what holds it now, or else its last
// activity.
func keptBy(status *idle.Status, now time.Time) string {
	var holders []idle.Keeper
	for _, k := range status.KeptAliveBy {
		if k.Kind != "activity" && k.Kind != "policy" {
			holders = append(holders, k)
		}
	}
	if len(holders) > 0 {
		k := holders[0]
		reason := "kept alive by " + k.Kind
		if k.ID != "" {
			reason += fmt.Sprintf(" %q", k.ID)
		}
		if k.Reason != "" {
			reason += fmt.Sprintf(" (%q)", k.Reason)
		}
		if len(holders) > 1 {
			reason += fmt.Sprintf(" and %d more", len(holders)-1)
		}
		return reason
	}
	reason := "it does not say when it was last active"
	if at := status.LastActivity.At; !at.IsZero() {
		reason = fmt.Sprintf("last active (%q) %s ago", status.LastActivity.Source, now.Sub(at).Round(time.Second))
	}
	if status.State == lifecycle.Idle {
		reason += ", and warned"
	}
	return reason
}
