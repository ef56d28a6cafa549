package policy

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// A claim outlives its agent, and with it the promise that was made to the user. So it carries the agent's name, which
// never changes, and the user type, which goes up and never down: storage is deleted only where the claim and the
// Deployment both say so. A raise removes the owner reference in the same step, or the garbage collector would take the
// claim along with a Deployment of the lower type.
//
// A claim begins empty: a data source would show its agent what a neighbour has stored.
var claims = Rule{
	ID:          "claims",
	Summary:     "a claim keeps whose it is and what its user was promised, and begins empty",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Claims.Enforcement },
	applies:     func(r *Request) bool { return r.Object.Claim != nil },
	check: func(p *Profile, r *Request) []Violation {
		return slices.Concat(p.checkClaimSource(r), p.checkClaimLabels(r), p.checkClaimType(r), p.checkClaimOwners(r))
	},
}

func (p *Profile) checkClaimSource(r *Request) []Violation {
	if r.Old != nil || allowsName(p.file.Rules.Volumes.Claims, "", anyName) {
		return nil // What a claim was made from cannot be changed.
	}
	var found []Violation
	spec := &r.Object.Claim.Spec
	for _, source := range []struct {
		field string
		set   bool
	}{
		{"spec.dataSource", spec.DataSource != nil}, {"spec.dataSourceRef", spec.DataSourceRef != nil},
		{"spec.volumeName", spec.VolumeName != ""}, {"spec.selector", spec.Selector != nil},
	} {
		if source.set {
			found = append(found, violation(source.field, "must not be set: the claim of an agent begins empty, with a volume of its own"))
		}
	}
	return found
}

// checkClaimLabels keeps the agent's name on the claim, and keeps agents from naming any.
func (p *Profile) checkClaimLabels(r *Request) []Violation {
	const key = lifecycle.LabelDeployment
	labels, field := r.Object.Meta.Labels, labelField("metadata", key)
	before, after := map[string]string(nil), labels[key]
	if r.Old != nil {
		before = r.Old.Meta.Labels
	}
	if before[key] == after {
		return nil
	}
	switch {
	case r.Old != nil && before[key] != "":
		return checkUnchanged(r, key)
	case p.isAgentAccount(r):
		return []Violation{violation(field, "%s, but %s may not say whose a claim is", isLabel(labels, key), userName(r))}
	case len(validation.IsDNS1123Subdomain(after)) > 0:
		return []Violation{violation(field, "%s, must be the name of a Deployment", isLabel(labels, key))}
	}
	return nil
}

func (p *Profile) checkClaimType(r *Request) []Violation {
	const key = lifecycle.LabelUserType
	labels, field := r.Object.Meta.Labels, labelField("metadata", key)
	after, has := labels[key]
	before, had := "", false
	if r.Old != nil {
		before, had = r.Old.Meta.Labels[key]
	}
	switch {
	case had && !has:
		return []Violation{violation(field, "was %q and may not be removed", before)}
	case !has || had && before == after:
		return nil
	}
	if _, err := lifecycle.ParseUserType(after); err != nil {
		return []Violation{violation(field, "%s, must be one of %s", isLabel(labels, key), userTypes())}
	}
	if r.Old == nil && !p.isAgentAccount(r) {
		return nil // As with a Deployment, whoever makes it chooses.
	}
	if !p.isTierEditor(r) && !p.isReaper(r) {
		return []Violation{violation(field, "%s may not change it from %q to %q; allowed: users %s, groups %s", userName(r), before, after,
			namesFor(slices.Concat(p.identities.TierEditors.Users, p.identities.Reapers), ""),
			namesFor(p.identities.TierEditors.Groups, ""))}
	}
	if had && !p.deletesStorage(before) && !p.keepsStorage(after) {
		return []Violation{violation(field, "may not change from %q, which keeps storage, to %q, which deletes it", before, after)}
	}
	return nil
}

// checkClaimOwners refuses what would hand a claim that is kept to the garbage collector: a reference to a Deployment.
func (p *Profile) checkClaimOwners(r *Request) []Violation {
	userType := r.Object.Meta.Labels[lifecycle.LabelUserType]
	if !p.keepsStorage(userType) || r.Old != nil && !ownersOrTypeChange(r) {
		return nil
	}
	if i := slices.IndexFunc(r.Object.Meta.OwnerReferences, isDeploymentReference); i >= 0 {
		return []Violation{violation("metadata.ownerReferences", "hold Deployment %q, which would take the claim along, but user type %q "+
			"keeps storage; remove the reference in the same step", r.Object.Meta.OwnerReferences[i].Name, userType)}
	}
	return nil
}

func ownersOrTypeChange(r *Request) bool {
	return r.Old.Meta.Labels[lifecycle.LabelUserType] != r.Object.Meta.Labels[lifecycle.LabelUserType] ||
		len(newOwners(r)) > 0
}

func isDeploymentReference(o metav1.OwnerReference) bool { return o.Kind == kindDeployment }

func (p *Profile) isReaper(r *Request) bool {
	return slices.Contains(p.identities.Reapers, r.User.Username)
}
