package policy

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

func isDeployment(r *Request) bool { return r.Object.Deployment != nil }

// ownerKind is the kind of the workload that the object stands for; empty where there is none or it is not known.
func ownerKind(r *Request) string {
	if r.Facts == nil {
		return ""
	}
	return r.Facts.Owner.Kind()
}

// isAgent says whether the object is an agent's Deployment or Pod, into which the system's parts belong. A Pod that
// carries the label is one as well: the label cannot be taken off, but a Pod can be taken from its ReplicaSet, and
// goes on running.
func isAgent(r *Request) bool {
	if isDeployment(r) {
		return true
	}
	return r.Object.Kind == kindPod &&
		(ownerKind(r) == kindDeployment || r.Object.Meta.Labels[lifecycle.LabelDeployment] != "")
}

// agentOf returns the name of the agent that the object belongs to. It is empty where that is not known, and for
// whatever is not a Deployment's: a Job of the same name as an agent has no right to what is the agent's.
func agentOf(r *Request) string {
	switch {
	case isDeployment(r):
		return r.Object.Meta.Name
	case ownerKind(r) == kindDeployment:
		return r.Facts.Owner.Name
	case r.Object.Kind == kindPod && r.Old != nil:
		return r.Old.Meta.Labels[lifecycle.LabelDeployment]
	default:
		return ""
	}
}

// isSidecar says whether a container has the sidecar's place in an agent. What it is like there is the business of the
// sidecar-integrity rule.
func isSidecar(r *Request, c workload.Container) bool {
	return c.Name == lifecycle.SidecarContainer && c.Sort == workload.Ordinary && isAgent(r)
}

// isInjected says whether a volume is one of those that the system puts into an agent: today, or into a Pod whose
// Deployment was admitted when it was another one.
func (p *Profile) isInjected(r *Request, volume *corev1.Volume) bool {
	if !isAgent(r) {
		return false
	}
	if containsVolume(p.injector.Parts("").Volumes, volume) {
		return true
	}
	return r.Object.Kind == kindPod && ownerKind(r) == kindDeployment && !p.predates(r.Facts.Owner) && containsVolume(r.Facts.Owner.Volumes, volume)
}

func containsVolume(volumes []corev1.Volume, volume *corev1.Volume) bool {
	for i := range volumes {
		if volumes[i].Name == volume.Name && workload.Equal(&volumes[i], volume) {
			return true
		}
	}
	return false
}
