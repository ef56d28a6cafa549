package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// It must be clear which container runs the agent: its exit code decides about the Deployment, and it alone gets the
// agent's environment and the shared volume.
//
// It is the one that the template's annotation names, else the one called agent, else the only one. That is decided on the
// template, and written there as the annotation where the container is not called agent: a service mesh may add containers to
// its Pods. A template that was stored before gets the annotation with its next change.
var agentContainer = Rule{
	ID:          "agent-container",
	Summary:     "it is clear which container runs the agent",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.AgentContainer.Enforcement },
	applies:     func(r *Request) bool { return isDeployment(r) && podsChange(r) },
	check:       checkAgentContainer,
}

func checkAgentContainer(_ *Profile, r *Request) []Violation {
	if _, err := workload.AgentContainer(&r.Object.Deployment.Spec.Template); err != nil {
		return []Violation{violation(r.Object.Template.Field("spec.containers"), "%v", err)}
	}
	return nil
}
