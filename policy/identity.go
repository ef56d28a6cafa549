package policy

import (
	"slices"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// An agent's Deployment, its template and its Pods carry the Deployment's name and its user type as labels, and nobody
// may take these away or change them: what an agent may mount and delete hangs on them.
//
// The name must fit a label, so it is at most 63 characters long and known when the Deployment is created, which it is
// not with generateName. The user type may be changed by the policy's tier editors, and only towards keeping storage:
// a change the other way would delete what the user was promised to keep.
var identity = Rule{
	ID:          "identity",
	Summary:     "identity labels are right and do not change; a tier moves only towards keeping storage",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Identity.Enforcement },
	applies:     func(r *Request) bool { return isDeployment(r) || r.Object.Kind == kindPod },
	check:       checkIdentity,
}

func checkIdentity(p *Profile, r *Request) []Violation {
	if r.Object.Kind == kindPod {
		return checkPodIdentity(r)
	}
	var found []Violation
	found = append(found, checkTierChange(p, r)...)
	labels := r.Object.Meta.Labels
	if !podsChange(r) {
		return append(found, checkUnchanged(r, lifecycle.LabelDeployment)...)
	}
	name := r.Object.Meta.Name
	if r.Object.Meta.GenerateName != "" && labels[lifecycle.LabelDeployment] != name {
		return append(found, violation("metadata.generateName",
			"the name must be known when label %s is written, and generateName %q makes one up later; set metadata.name",
			lifecycle.LabelDeployment, r.Object.Meta.GenerateName))
	}
	if problems := validation.IsValidLabelValue(name); len(problems) > 0 {
		return append(found, violation("metadata.name",
			"%q is %d characters long, but the name must fit label %s, which holds at most %d", name, len(name),
			lifecycle.LabelDeployment, validation.LabelValueMaxLength))
	}
	userType := labels[lifecycle.LabelUserType]
	if _, err := lifecycle.ParseUserType(userType); err != nil {
		found = append(found, violation(labelField("metadata", lifecycle.LabelUserType), "%v", err))
	}
	template := r.Object.Template
	for _, l := range []struct {
		path   string
		labels map[string]string
		key    string
		want   string
	}{
		{"metadata", labels, lifecycle.LabelDeployment, name},
		{template.Field("metadata"), template.Meta.Labels, lifecycle.LabelDeployment, name},
		{template.Field("metadata"), template.Meta.Labels, lifecycle.LabelUserType, userType},
	} {
		if got := l.labels[l.key]; got != l.want {
			found = append(found, violation(labelField(l.path, l.key), "is %q, must be %q", got, l.want))
		}
	}
	return found
}

func checkTierChange(p *Profile, r *Request) []Violation {
	if r.Old == nil {
		return nil
	}
	field := labelField("metadata", lifecycle.LabelUserType)
	before, had := r.Old.Meta.Labels[lifecycle.LabelUserType]
	after, has := r.Object.Meta.Labels[lifecycle.LabelUserType]
	if !had || before == after {
		return nil
	}
	if !has {
		return []Violation{violation(field, "was %q and may not be removed", before)}
	}
	if _, err := lifecycle.ParseUserType(after); err != nil {
		return []Violation{violation(field, "%v", err)}
	}
	if !p.isTierEditor(r) {
		return []Violation{violation(field, "%s may not change it from %q to %q; allowed: users %s, groups %s", userName(r),
			before, after, namesFor(p.identities.TierEditors.Users, ""), namesFor(p.identities.TierEditors.Groups, ""))}
	}
	was, is := p.tiers[lifecycle.UserType(before)], p.tiers[lifecycle.UserType(after)]
	if was.Storage != v1alpha1.StorageDelete && is.Storage == v1alpha1.StorageDelete {
		return []Violation{violation(field, "may not change from %q, which keeps storage, to %q, which deletes it", before, after)}
	}
	return nil
}

func (p *Profile) isTierEditor(r *Request) bool {
	editors := p.identities.TierEditors
	return slices.Contains(editors.Users, r.User.Username) ||
		slices.ContainsFunc(r.User.Groups, func(group string) bool { return slices.Contains(editors.Groups, group) })
}

func checkPodIdentity(r *Request) []Violation {
	if r.Old != nil {
		return append(checkUnchanged(r, lifecycle.LabelDeployment), checkUnchanged(r, lifecycle.LabelUserType)...)
	}
	if r.Facts == nil || r.Facts.Owner == nil {
		return nil
	}
	owner := r.Facts.Owner
	if owner.Kinds[len(owner.Kinds)-1] != kindDeployment {
		return nil
	}
	if got := r.Object.Meta.Labels[lifecycle.LabelDeployment]; got != owner.Name {
		return []Violation{violation(labelField("metadata", lifecycle.LabelDeployment), "is %q, must be %q", got, owner.Name)}
	}
	return nil
}

// checkUnchanged refuses to change or remove a label that is there, or to add one that is not: an object from before
// the policy gets its labels with the next change of its template.
func checkUnchanged(r *Request, key string) []Violation {
	before, had := r.Old.Meta.Labels[key]
	after, has := r.Object.Meta.Labels[key]
	if had == has && before == after {
		return nil
	}
	if !has {
		return []Violation{violation(labelField("metadata", key), "was %q and may not be removed", before)}
	}
	if !had && isDeployment(r) && after == r.Object.Meta.Name {
		return nil
	}
	return []Violation{violation(labelField("metadata", key), "was %q and may not become %q", before, after)}
}

func labelField(metadata, key string) string { return metadata + ".labels[" + key + "]" }
