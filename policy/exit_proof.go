package policy

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// maxClockSkew is how far ahead of the server's clock a node's may be.
const maxClockSkew = 30 * time.Second

// exitProof looks for the end of the agent in what the kubelet reports of the caller's Pod.
//
// A container that is terminated with 42 proves it for as long as it stays so. One that was started again, since the
// cluster has no restart rules or the Pod's sandbox was lost, proves it for the policy's window: after that the agent may
// be at work. A container that runs or waits without either has not ended as far as the kubelet has told, which takes up
// to two seconds.
//
// The lifetime is that of the run which ended with 42. The Pod's begins before its images are pulled, which may take longer than
// a broken agent needs to fail; and a run that only waits behind an earlier 42 ends with another code.
func (p *Profile) exitProof(facts *Facts) (exit, []Violation) {
	pod := facts.Caller.Pod
	fromTemplate := ""
	if facts.Caller.Owner != nil {
		fromTemplate = facts.Caller.Owner.AgentContainer
	}
	i, err := workload.AgentContainerOfPod(pod, fromTemplate)
	if err != nil {
		return exit{}, []Violation{violation("", "Pod %q: %v", pod.Name, err)}
	}
	name := pod.Spec.Containers[i].Name
	wait := func(format string, args ...any) (exit, []Violation) {
		v := violation("", format, args...)
		v.Wait = WaitForExit
		return exit{}, []Violation{v}
	}
	at := slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == name })
	if at < 0 {
		return wait("the kubelet has not reported on container %q of Pod %q yet", name, pod.Name)
	}
	status := &pod.Status.ContainerStatuses[at]
	ended := status.State.Terminated
	if ended == nil {
		ended = status.LastTerminationState.Terminated
		if ended == nil || !isIdleExit(ended) || p.isStale(facts, ended) {
			return wait("the kubelet has not reported that container %q of Pod %q ended with %d%s", name, pod.Name,
				lifecycle.ExitIdle, p.before(ended))
		}
	}
	if !isIdleExit(ended) {
		return exit{}, []Violation{violation("", "container %q of Pod %q ended with exit code %d%s, and not because it was idle (%d)",
			name, pod.Name, ended.ExitCode, bySignal(ended), lifecycle.ExitIdle)}
	}
	if ahead := ended.FinishedAt.Sub(facts.Now.Time); ahead > maxClockSkew {
		return exit{}, []Violation{violation("", "container %q of Pod %q ended at %s, which is %s from now", name, pod.Name,
			stamp(ended.FinishedAt), ahead)}
	}
	if least := p.selfDelete.MinimumLifetime.Duration; lifetime(pod, ended) < least {
		return exit{}, []Violation{violation("", "container %q of Pod %q had run %s when it ended, less than %s: that is a failed start",
			name, pod.Name, lifetime(pod, ended), least)}
	}
	return exit{name, ended}, nil
}

// isIdleExit is false for a signal, whatever number it leaves: nobody is killed into idleness.
func isIdleExit(t *corev1.ContainerStateTerminated) bool {
	return t.ExitCode == lifecycle.ExitIdle && t.Signal == 0
}

func (p *Profile) isStale(facts *Facts, t *corev1.ContainerStateTerminated) bool {
	return facts.Now.Sub(t.FinishedAt.Time) > p.selfDelete.ProofWindow.Duration
}

// before says what came before the run that is under way.
func (p *Profile) before(t *corev1.ContainerStateTerminated) string {
	switch {
	case t == nil:
		return ""
	case isIdleExit(t):
		return "; its last exit, at " + stamp(t.FinishedAt) + ", is older than " + p.selfDelete.ProofWindow.Duration.String() +
			" and counts no more"
	}
	return violation("", "; its last run ended with %d%s at %s", t.ExitCode, bySignal(t), stamp(t.FinishedAt)).Message
}

func bySignal(t *corev1.ContainerStateTerminated) string {
	if t.Signal == 0 {
		return ""
	}
	return violation("", " by signal %d", t.Signal).Message
}

func lifetime(pod *corev1.Pod, t *corev1.ContainerStateTerminated) time.Duration {
	began := t.StartedAt
	switch {
	case !began.IsZero():
	case pod.Status.StartTime != nil:
		began = *pod.Status.StartTime
	default:
		began = pod.CreationTimestamp
	}
	return t.FinishedAt.Sub(began.Time)
}
