package fleet

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Mode is which agents are looked after.
type Mode int

// The values of Mode.
const (
	// Adopt: those that were there before the installation.
	Adopt Mode = iota

	// Upgrade: those that were admitted, and have not what is injected today.
	Upgrade
)

// concerned says whether a Deployment is one of a mode's.
func (m Mode) concerned(d *appsv1.Deployment) bool { return Adopted(d) == (m == Upgrade) }

// hindrance says why a Deployment is better left alone whatever its agent does; empty if nothing speaks against it. One that is not
// ready now is left alone, since nobody could tell afterwards what the restart has done to it; unless it has no Pod, since none was let
// in, or an earlier upgrade has made it so: the restart may put that right.
func (m Mode) hindrance(d *appsv1.Deployment) string {
	_, renewed := d.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt]
	switch {
	case d.DeletionTimestamp != nil:
		return "it is being deleted"
	case d.Spec.Paused:
		return "its rollouts are paused: kubectl rollout resume"
	case d.Status.ObservedGeneration >= d.Generation && (d.Status.Replicas == 0 || m == Upgrade && renewed):
	case !settled(d):
		return fmt.Sprintf("it is not ready as it is: %d of %d replicas", d.Status.ReadyReplicas, replicasOf(d))
	}
	return ""
}

// settled says whether everything that a Deployment asks for is ready, and nothing else is left.
func settled(d *appsv1.Deployment) bool {
	want := replicasOf(d)
	s := &d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == want && s.ReadyReplicas == want && s.Replicas == want
}

func replicasOf(d *appsv1.Deployment) int32 {
	if d.Spec.Replicas == nil {
		return 1
	}
	return *d.Spec.Replicas
}

// mayRestart says whether an agent may be restarted, and if not, why.
func mayRestart(s Seen, working bool) (ok bool, reason string) {
	switch {
	case s.Work == Ended:
		return false, s.Reason
	case s.Work == Working && !working:
		return false, s.Reason
	}
	return true, ""
}

// underWay says for how much longer an agent that was restarted by an earlier run may still come up by itself. Zero: it was not, or it
// is ready, or its time is over.
func underWay(d *appsv1.Deployment, within time.Duration, now time.Time) time.Duration {
	at, err := time.Parse(time.RFC3339, d.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt])
	if err != nil || settled(d) || d.DeletionTimestamp != nil {
		return 0
	}
	return max(0, at.Add(within).Sub(now))
}

// renewalTime is what a request for today's parts says. To the second it could be what the last one said, and ask for nothing.
func renewalTime(now time.Time) string { return now.UTC().Format(time.RFC3339Nano) }
