package reaper

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// PolicySource returns the policy file in force.
type PolicySource interface {
	File() *v1alpha1.LifecyclePolicy
}

// agent is a Deployment as decisions see it.
type agent struct {
	*appsv1.Deployment
	userType lifecycle.UserType
	tier     v1alpha1.Tier
	policy   *v1alpha1.LifecyclePolicy
}

// agentOf says whether a Deployment is an agent of the policy, and of which tier. One whose user type is unknown is none:
// nothing can be said about what it was promised.
func agentOf(policy *v1alpha1.LifecyclePolicy, d *appsv1.Deployment) (*agent, bool) {
	if d.Labels[lifecycle.LabelDeployment] != d.Name || d.DeletionTimestamp != nil {
		return nil, false
	}
	for i := range policy.Profiles {
		profile := &policy.Profiles[i]
		if !profile.Namespaces.Covers(d.Namespace) {
			continue
		}
		userType := profile.DefaultUserType
		if label, ok := d.Labels[lifecycle.LabelUserType]; ok {
			userType = lifecycle.UserType(label)
		}
		tier, known := policy.Tiers[userType]
		return &agent{d, userType, tier, policy}, known
	}
	return nil, false
}

func (a *agent) deletesStorage() bool { return a.tier.Storage == v1alpha1.StorageDelete }

// keeps says whether a user type keeps storage, as far as is known.
func (a *agent) keeps(userType string) bool {
	return a.policy.Tiers[lifecycle.UserType(userType)].Storage != v1alpha1.StorageDelete
}

// mounts says whether the agent's Pods mount a claim.
func (a *agent) mounts(claim string) bool {
	for i := range a.Spec.Template.Spec.Volumes {
		if source := a.Spec.Template.Spec.Volumes[i].PersistentVolumeClaim; source != nil && source.ClaimName == claim {
			return true
		}
	}
	return false
}
