package workload

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxReason bounds what is told of a Pod, in bytes. Messages about images can be some kilobytes long.
const maxReason = 1024

// problem is why a Pod is not ready.
type problem struct {
	brief, reason string
	since         time.Time
}

// podProblem says why a Pod is not ready, in the kubelet's and the scheduler's words, and since when that is so.
func podProblem(pod *corev1.Pod) problem {
	p := problem{since: notReadySince(pod)}
	tell := func(brief, format string, args ...any) problem {
		p.brief, p.reason = brief, bounded("Pod "+pod.Name+fmt.Sprintf(format, args...))
		return p
	}
	if pod.DeletionTimestamp != nil {
		p.since = pod.DeletionTimestamp.UTC()
		return tell("Terminating", " is being deleted")
	}
	if hasEnded(pod) && pod.Status.Reason != "" {
		return tell(pod.Status.Reason, " has ended: %s", joined(pod.Status.Reason, pod.Status.Message))
	}
	if c := PodCondition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionFalse {
		if !c.LastTransitionTime.IsZero() {
			p.since = c.LastTransitionTime.UTC()
		}
		return tell(cmp.Or(c.Reason, "not scheduled"), " is not scheduled: %s", joined(c.Reason, c.Message))
	}
	if s := hindering(pod); s != nil {
		brief, words := containerProblem(s)
		return tell(brief, ": container %s: %s", s.Name, words)
	}
	if c := PodCondition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse && joined(c.Reason, c.Message) != "" {
		return tell("not ready", " is not ready: %s", joined(c.Reason, c.Message))
	}
	return tell("not ready", " is not ready")
}

// notReadySince is from when on a Pod has not been ready, by its condition, or else by its creation.
func notReadySince(pod *corev1.Pod) time.Time {
	if c := PodCondition(pod, corev1.PodReady); c != nil && c.Status != corev1.ConditionTrue && !c.LastTransitionTime.IsZero() {
		return c.LastTransitionTime.UTC()
	}
	return pod.CreationTimestamp.UTC()
}

// hindering returns the container that keeps a Pod from being ready; nil if the kubelet blames none. Init containers
// come before the others, which wait for them. A container for which the kubelet names a reason comes before one that
// is merely slow.
func hindering(pod *corev1.Pod) *corev1.ContainerStatus {
	for _, of := range []func(*corev1.ContainerStatus) bool{
		func(s *corev1.ContainerStatus) bool { return s.State.Waiting != nil && !merelySlow(s.State.Waiting) },
		func(s *corev1.ContainerStatus) bool {
			return s.State.Terminated != nil && s.State.Terminated.ExitCode != 0
		},
		func(s *corev1.ContainerStatus) bool { return s.State.Running != nil && !s.Ready && restarted(s) },
		func(s *corev1.ContainerStatus) bool { return s.State.Running != nil && !s.Ready },
		func(s *corev1.ContainerStatus) bool { return s.State.Waiting != nil && s.State.Waiting.Reason != "" },
	} {
		for i := range pod.Status.InitContainerStatuses {
			if s := &pod.Status.InitContainerStatuses[i]; of(s) {
				return s
			}
		}
		// The agent's own comes first: a sidecar that ends after it has no say.
		if s := AgentContainerStatus(pod); s != nil && of(s) {
			return s
		}
		for i := range pod.Status.ContainerStatuses {
			if s := &pod.Status.ContainerStatuses[i]; of(s) {
				return s
			}
		}
	}
	if s := AgentContainerStatus(pod); s != nil && s.State.Terminated != nil {
		return s // with 0: no problem of its own, but what the Pod lacks
	}
	return nil
}

func merelySlow(w *corev1.ContainerStateWaiting) bool {
	return slices.Contains([]string{"", "ContainerCreating", "PodInitializing"}, w.Reason)
}

func restarted(s *corev1.ContainerStatus) bool { return s.LastTerminationState.Terminated != nil }

// containerProblem says what is wrong with a container: in a word or two, and in the kubelet's.
func containerProblem(s *corev1.ContainerStatus) (brief, words string) {
	switch state := &s.State; {
	case state.Waiting != nil:
		brief, words = state.Waiting.Reason, joined(state.Waiting.Reason, state.Waiting.Message)
	case state.Terminated != nil:
		return ending(state.Terminated), "it ended with " + ending(state.Terminated)
	default:
		brief, words = "not ready", "it runs and is not ready"
	}
	if last := s.LastTerminationState.Terminated; last != nil {
		brief += " (" + ending(last) + ")"
		words += fmt.Sprintf("; it was started again %s, and last ended with %s", times(s.RestartCount), ending(last))
		if !last.FinishedAt.IsZero() {
			words += " at " + last.FinishedAt.UTC().Format(time.RFC3339)
		}
	}
	return brief, words
}

// ending is how a container ended, such as "OOMKilled, exit code 137". The reasons Error and Completed say no more
// than the code.
func ending(t *corev1.ContainerStateTerminated) string {
	code := fmt.Sprintf("exit code %d", t.ExitCode)
	if slices.Contains([]string{"", "Error", "Completed"}, t.Reason) {
		return code
	}
	return t.Reason + ", " + code
}

func times(n int32) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// joined is a reason with its message, where there are both.
func joined(reason, message string) string {
	switch {
	case message == "":
		return reason
	case reason == "":
		return message
	}
	return reason + ": " + message
}

func bounded(reason string) string {
	if len(reason) <= maxReason {
		return reason
	}
	return strings.ToValidUTF8(reason[:maxReason-len("…")], "") + "…"
}
