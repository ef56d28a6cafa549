package fleet

import (
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/inject"
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

// need is what an agent needs of a Roll.
type need int

const (
	nothing     need = iota
	renewal          // it has not what is injected today
	patience         // an earlier run has restarted it, and it may still come up
	help             // an earlier run has restarted it, and it has not come up
	activityKey      // it lacks nothing but the gateway's key, which a server may have for it
)

// needs says what a Deployment needs. Who is deleted needs nothing any more.
func (r *Roll) needs(d *appsv1.Deployment) need {
	if d.DeletionTimestamp != nil {
		return nothing
	}
	_, changes := r.judge().Renewed(d.Namespace, d)
	switch {
	case changes && r.Mode.concerned(d):
		return renewal
	case changes:
		return nothing
	case underWay(d, r.ReadyWithin, r.Now()) > 0:
		return patience
	case neverReady(d):
		return help
	case r.Mode == Upgrade && Adopted(d) && !inject.HasActivityKey(d):
		return activityKey
	}
	return nothing
}

// neverReady says whether an agent was restarted by an earlier run, and has not been ready since. That a rollout has once succeeded the
// Deployment's condition Progressing says until the next one, whatever became of the Pods later.
func neverReady(d *appsv1.Deployment) bool {
	if _, renewed := d.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt]; !renewed || settled(d) || replicasOf(d) == 0 {
		return false
	}
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Reason == rolloutDone && d.Status.ObservedGeneration >= d.Generation {
			return false
		}
	}
	return true
}

// rolloutDone is the reason of the condition Progressing of a Deployment that was rolled out; the API has no name for it.
const rolloutDone = "NewReplicaSetAvailable"

// hindrance says why a Deployment is better left alone whatever its agent does; empty if nothing speaks against it. One that is not
// ready now is left alone, since nobody could tell afterwards what the restart has done to it; unless it has no Pod, since none was let
// in, or an earlier upgrade has made it so: the restart may put that right.
func (m Mode) hindrance(d *appsv1.Deployment) string {
	_, renewed := d.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt]
	switch {
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
