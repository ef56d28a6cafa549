package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// An agent is one Pod or none: it holds one claim and one identity. The bound holds for the workload and for its scale
// subresource. A ReplicaSet follows its Deployment, so what its controller writes is not asked again.
var replicas = Rule{
	ID:          "replicas",
	Summary:     "an agent has one Pod or none",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Replicas.Enforcement },
	applies:     func(r *Request) bool { return r.Object.Replicas != nil },
	check:       checkReplicas,
}

func checkReplicas(p *Profile, r *Request) []Violation {
	got, limit := *r.Object.Replicas, *p.file.Rules.Replicas.Max
	if got <= limit || r.Object.Kind == kindReplicaSet && p.isController(r) {
		return nil
	}
	if r.Old != nil && r.Old.Replicas != nil && *r.Old.Replicas >= got {
		return nil // It was as many before the policy; fewer is better than as many.
	}
	return []Violation{violation("spec.replicas", "is %d, must be at most %d", got, limit)}
}
