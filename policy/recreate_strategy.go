package policy

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// An agent's old Pod goes before its new one comes. Under RollingUpdate the new Pod waits for a ReadWriteOnce claim
// that the old one holds, and two agents of one name run at once. A rollingUpdate block beside type Recreate is
// refused by the API server; here it is named, for files that are checked offline.
var recreateStrategy = Rule{
	ID:          "recreate-strategy",
	Summary:     "Deployments are updated by Recreate",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.RecreateStrategy.Enforcement },
	applies: func(r *Request) bool {
		return isDeployment(r) && (podsChange(r) ||
			!workload.Equal(&r.Object.Deployment.Spec.Strategy, &r.Old.Deployment.Spec.Strategy))
	},
	check: checkRecreateStrategy,
}

func checkRecreateStrategy(_ *Profile, r *Request) []Violation {
	strategy := r.Object.Deployment.Spec.Strategy
	if strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return []Violation{violation("spec.strategy.type", "is %q, must be %q", strategy.Type, appsv1.RecreateDeploymentStrategyType)}
	}
	if strategy.RollingUpdate != nil {
		return []Violation{violation("spec.strategy.rollingUpdate", "must be absent with type %q", strategy.Type)}
	}
	return nil
}
