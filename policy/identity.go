package policy

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// An agent's Deployment, its template, its ReplicaSets and Pods carry the Deployment's name and its user type as labels,
// and nobody may take these away or change them: what an agent may mount and delete hangs on them.
//
// The name must fit a label, so it is at most 63 characters long and known when the Deployment is created, which it is
// not with generateName. The user type may be changed by the policy's tier editors, and only towards keeping storage:
// a change the other way would delete what the user was promised to keep.
var identity = Rule{
	ID:          "identity",
	Summary:     "identity labels are right and do not change; a tier moves only towards keeping storage",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Identity.Enforcement },
	applies: func(r *Request) bool {
		return isDeployment(r) || r.Object.Kind == kindPod || r.Object.Kind == kindReplicaSet || podsChange(r)
	},
	check: checkIdentity,
}

func checkIdentity(p *Profile, r *Request) []Violation {
	if r.Object.Kind == kindPod {
		return checkPodIdentity(r)
	}
	if r.Object.Kind == kindReplicaSet {
		return checkReplicaSetIdentity(p, r)
	}
	if !isDeployment(r) {
		return checkNoAgent(r)
	}
	found := checkUserType(p, r)
	if !podsChange(r) {
		return append(found, checkUnchanged(r, lifecycle.LabelDeployment)...)
	}
	const key = lifecycle.LabelDeployment
	name, labels := r.Object.Meta.Name, r.Object.Meta.Labels
	if generate := r.Object.Meta.GenerateName; generate != "" && (name == "" || labels[key] != name) {
		return append(found, violation("metadata.generateName",
			"%q leaves the name open, but label %s needs it when the Deployment is created; set metadata.name", generate, key))
	}
	if len(name) > validation.LabelValueMaxLength {
		return append(found, violation("metadata.name", "%q has %d characters, but the name must fit label %s, which holds at most %d",
			name, len(name), key, validation.LabelValueMaxLength))
	}
	found = append(found, checkLabel("metadata", labels, key, name)...)
	found = append(found, checkTemplateLabel(r, key, name)...)
	if userType, err := lifecycle.ParseUserType(labels[lifecycle.LabelUserType]); err == nil {
		found = append(found, checkTemplateLabel(r, lifecycle.LabelUserType, string(userType))...)
	}
	return found
}

// checkNoAgent keeps what is not an agent from making Pods that pass for an agent's.
func checkNoAgent(r *Request) []Violation {
	const key = lifecycle.LabelDeployment
	labels := r.Object.Template.Meta.Labels
	if labels[key] == "" {
		return nil
	}
	return []Violation{violation(labelField(r.Object.Template.Field("metadata"), key),
		"%s, but a %s is not an agent; leave the label out", isLabel(labels, key), r.Object.Kind)}
}

func checkLabel(path string, labels map[string]string, key, want string) []Violation {
	if labels[key] == want {
		return nil
	}
	return []Violation{violation(labelField(path, key), "%s, must be %q", isLabel(labels, key), want)}
}

// checkTemplateLabel refuses a selector because of which the label could not be put right.
func checkTemplateLabel(r *Request, key, want string) []Violation {
	t := r.Object.Template
	if t.Meta.Labels[key] == want {
		return nil
	}
	if selector := r.Object.Deployment.Spec.Selector; !inject.SelectsWith(selector, t.Meta.Labels, key, want) {
		return []Violation{violation("spec.selector", "is %q, must select what has the label %s=%s, as the agent's Pods have",
			metav1.FormatLabelSelector(selector), key, want)}
	}
	return checkLabel(t.Field("metadata"), t.Meta.Labels, key, want)
}

// checkUserType holds the label to what exists, and its change to who may make it and which way.
func checkUserType(p *Profile, r *Request) []Violation {
	labels := r.Object.Meta.Labels
	changes := r.Old != nil && r.Old.Meta.Labels[lifecycle.LabelUserType] != labels[lifecycle.LabelUserType]
	if !changes && !podsChange(r) {
		return nil
	}
	if _, err := lifecycle.ParseUserType(labels[lifecycle.LabelUserType]); err != nil {
		return []Violation{violation(labelField("metadata", lifecycle.LabelUserType), "%s, must be one of %s",
			isLabel(labels, lifecycle.LabelUserType), userTypes())}
	}
	if !changes {
		return nil
	}
	return checkTierChange(p, r)
}

// checkTierChange is asked of a change from one user type to another. A Deployment from before the policy has none, and
// gets its first like a new one.
func checkTierChange(p *Profile, r *Request) []Violation {
	field := labelField("metadata", lifecycle.LabelUserType)
	before, had := r.Old.Meta.Labels[lifecycle.LabelUserType]
	after := r.Object.Meta.Labels[lifecycle.LabelUserType]
	if !had {
		return nil
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
	const key = lifecycle.LabelDeployment
	owner, labels := r.Facts.Owner, r.Object.Meta.Labels
	switch {
	case owner.Kind() == kindDeployment && labels[key] != owner.Name:
		return []Violation{violation(labelField("metadata", key), "%s, must be %q", isLabel(labels, key), owner.Name)}
	case owner.Kind() != kindDeployment && labels[key] != "":
		return []Violation{violation(labelField("metadata", key),
			"%s, but the Pod belongs to %s %q and not to an agent; leave the label out", isLabel(labels, key), owner.Kind(), owner.Name)}
	}
	return nil
}

// checkReplicaSetIdentity keeps the label by which a ReplicaSet that has lost its Deployment is told from one that is
// older than the policy, whose Pods are tolerated.
func checkReplicaSetIdentity(p *Profile, r *Request) []Violation {
	if r.Old == nil || p.isController(r) {
		return nil
	}
	return checkUnchanged(r, lifecycle.LabelDeployment)
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

func userTypes() string {
	var names []string
	for _, t := range lifecycle.UserTypes() {
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}
