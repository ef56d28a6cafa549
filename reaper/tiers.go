package reaper

import (
	"slices"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// PolicySource returns the policy file in force.
type PolicySource interface {
	File() *v1alpha1.LifecyclePolicy
}

// agent is a Deployment as decisions see it.
type agent struct {
	*workload
	userType lifecycle.UserType
	tier     v1alpha1.Tier
	policy   *v1alpha1.LifecyclePolicy
}

// agentOf says whether a Deployment is an agent of the policy, and of which tier. One whose user type is unknown is none:
// nothing can be said about what it was promised.
func agentOf(policy *v1alpha1.LifecyclePolicy, d *workload) (*agent, bool) {
	if !isAgent(d) || d.deleting {
		return nil, false
	}
	for i := range policy.Profiles {
		profile := &policy.Profiles[i]
		if !profile.Namespaces.Covers(d.namespace) {
			continue
		}
		userType := profile.DefaultUserType
		if label, ok := d.labels[lifecycle.LabelUserType]; ok {
			userType = lifecycle.UserType(label)
		}
		tier, known := policy.Tiers[userType]
		return &agent{d, userType, tier, policy}, known
	}
	return nil, false
}

func (a *agent) deletesStorage() bool { return a.tier.Storage == v1alpha1.StorageDelete }

// keeps says whether a user type keeps storage, as far as is known.
func (a *agent) keeps(userType string) bool { return keepsStorage(a.policy, userType) }

func keepsStorage(policy *v1alpha1.LifecyclePolicy, userType string) bool {
	return policy.Tiers[lifecycle.UserType(userType)].Storage != v1alpha1.StorageDelete
}

// mounts says whether the agent's Pods mount a claim.
func (a *agent) mounts(claim string) bool { return slices.Contains(a.claims, claim) }
