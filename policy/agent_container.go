package policy

import (
	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// It must be clear which container runs the agent: its exit code decides about the Deployment, and it alone gets the
// agent's environment and the shared volume.
var agentContainer = Rule{
	ID:          "agent-container",
	Summary:     "it is clear which container runs the agent",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.AgentContainer.Enforcement },
	applies:     func(r *Request) bool { return isDeployment(r) && podsChange(r) },
	check:       checkAgentContainer,
}

func checkAgentContainer(_ *Profile, r *Request) []Violation {
	if _, err := inject.AgentContainer(r.Object.Deployment); err != nil {
		return []Violation{violation(r.Object.Template.Field("spec.containers"), "%v", err)}
	}
	return nil
}
