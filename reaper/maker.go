package reaper

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// comparedLength is how much of a workload's name is compared with a Pod's. A name is cut at 58 characters before it
// gets its random end, and that of an indexed Job's Pod some characters earlier, to make room for the index.
const comparedLength = 50

// makers are the names of what is there that makes Pods: of workloads, and of what controls them.
type makers map[string]bool

// add adds a workload, and what controls it, of whatever kind that is.
func (m makers) add(workload metav1.Object) {
	m[workload.GetName()] = true
	if c := metav1.GetControllerOfNoCopy(workload); c != nil {
		m[c.Name] = true
	}
}

// mayHaveMade says whether a Pod of that name may have been a workload's that is there.
//
// The name is all that is left of a Pod that has gone, and says enough: every controller of Kubernetes begins a Pod's
// name with its own, a Deployment by way of its ReplicaSet. So the answer is also right for a Pod that was replaced
// by a rollout or a drain, for a workload that is scaled to 0, and for one that was deleted and made anew. A workload
// whose name merely begins like the Pod's keeps more than it need, which harms nobody. Without a name any workload
// may have been it.
func (m makers) mayHaveMade(pod string) bool {
	if pod == "" {
		return len(m) > 0
	}
	for name := range m {
		prefix := name + "-"
		if len(prefix) > comparedLength {
			prefix = prefix[:comparedLength]
		}
		if pod == name || strings.HasPrefix(pod, prefix) {
			return true
		}
	}
	return false
}
