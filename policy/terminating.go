package policy

import (
	"time"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// A Deployment that is being deleted cannot be brought back by changing it. During a foreground deletion the API
// server still accepts a change and kubectl apply reports success, but what was applied is gone a moment later: that
// loss is refused with a reason. Finalizers can still be removed, and labels and annotations changed.
var terminating = Rule{
	ID:          "terminating",
	Summary:     "the spec of a Deployment that is being deleted does not change",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Terminating.Enforcement },
	applies:     func(r *Request) bool { return isDeployment(r) && r.Old != nil && r.Old.Meta.DeletionTimestamp != nil },
	check:       checkTerminating,
}

func checkTerminating(_ *Profile, r *Request) []Violation {
	if workload.Equal(&r.Object.Deployment.Spec, &r.Old.Deployment.Spec) {
		return nil
	}
	return []Violation{violation("spec", "the Deployment has been on its way out since %s and a change would be lost; "+
		"wait until it is gone and create it anew", r.Old.Meta.DeletionTimestamp.UTC().Format(time.RFC3339))}
}
