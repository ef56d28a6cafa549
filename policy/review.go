package policy

import (
	"fmt"
	"slices"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// rules is Rules, built once.
var rules = Rules()

// Review judges a request by the rules of the profile that covers its namespace. Where none does, everything is
// allowed.
func (p *Policy) Review(r *Request) Verdict {
	profile := p.Profile(r.Namespace)
	if profile == nil {
		return Verdict{}
	}
	r = sameKind(r)
	v := Verdict{Profile: profile.Name(), Namespace: r.Namespace, Prefix: profile.prefixOf(r.Namespace), Unchecked: p.unchecked(r)}
	tolerated := profile.tolerated(r)
	for _, rule := range rules {
		enforcement := rule.enforcement(&profile.file.Rules)
		if enforcement == v1alpha1.Enforce && r.RuleTimes[rule.ID].WarnOnly {
			enforcement = v1alpha1.Warn
		}
		for _, found := range profile.violations(rule, r) {
			switch enforcement {
			case v1alpha1.Audit:
				v.Audits = collect(v.Audits, found)
			case v1alpha1.Warn:
				v.Warnings = collect(v.Warnings, found)
			default:
				if reason := tolerated(found); reason != "" {
					found.Tolerated = reason
					v.Warnings = collect(v.Warnings, found)
				} else {
					v.Denials = collect(v.Denials, found)
				}
			}
		}
		if rule.decisive && len(v.Denials) > 0 || full(v.Denials) {
			break
		}
	}
	if isSelfDelete(r) && v.Allowed() {
		v.SelfDelete = profile.provenSelfDelete(r)
	}
	return v
}

// sameKind leaves out an old object of another kind: there is nothing in it to compare with, and as if it were new an
// object is judged in full.
func sameKind(r *Request) *Request {
	if r.Old == nil || r.Object == nil || r.Old.Kind == r.Object.Kind {
		return r
	}
	asNew := *r
	asNew.Old = nil
	return &asNew
}

func (p *Profile) violations(rule Rule, r *Request) []Violation {
	if r.Object == nil && !rule.deletions || !rule.applies(r) {
		return nil
	}
	found := bounded(rule.ID, rule.check(p, r))
	for i := range found {
		found[i].Rule = rule.ID
	}
	return found
}

// Needs says which facts a verdict on r takes.
func (p *Policy) Needs(r *Request) Needs {
	profile := p.Profile(r.Namespace)
	if profile == nil {
		return Needs{}
	}
	r = sameKind(r)
	if r.Object == nil {
		return profile.needsOfDeletion(r)
	}
	if r.Object.Template == nil {
		return profile.needsOfGateway(r)
	}
	needs := Needs{Owner: r.Object.Kind == kindPod || comesFromController(r.Object.Kind) && r.Old == nil}
	if podsChange(r) && !allowsName(profile.file.Rules.Volumes.Claims, "", anyName) {
		needs.Claims = claimNames(r.Object.Template.Spec)
	}
	needs.Deployments = profile.needsOfGateway(r).Deployments
	return needs
}

func (p *Policy) unchecked(r *Request) []string {
	if r.Facts != nil {
		return nil
	}
	needs := p.Needs(r)
	var unchecked []string
	if needs.Owner {
		unchecked = append(unchecked, "which workload it belongs to")
	}
	if needs.Caller {
		unchecked = append(unchecked, "which Pod sends it, and whether that has ended")
	}
	for _, name := range needs.Deployments {
		unchecked = append(unchecked, fmt.Sprintf("whether Deployment %q is the one that is referred to", name))
	}
	for _, name := range needs.Claims {
		unchecked = append(unchecked, fmt.Sprintf("whose claim %q is, if it exists", name))
	}
	return unchecked
}

// predates says whether an owner was created before the policy covered its namespace: no Deployment is admitted
// without the label, and no workload of a kind that is not allowed is admitted at all. The label on a ReplicaSet says
// that it was an admitted Deployment's, which it has lost. Of the rest the profile says from when on they were judged.
func (p *Profile) predates(owner *Owner) bool {
	switch kind := owner.Kind(); kind {
	case "":
		return false
	case kindDeployment:
		return !Admitted(owner.Name, owner.Labels)
	default:
		if slices.Contains(p.file.Rules.WorkloadKind.Kinds, kind) {
			return !owner.Created.IsZero() && owner.Created.Before(p.file.AdoptBefore)
		}
		return owner.Labels[lifecycle.LabelDeployment] == ""
	}
}

// The kinds that rules speak of.
const (
	kindDeployment            = "Deployment"
	kindReplicaSet            = "ReplicaSet"
	kindJob                   = "Job"
	kindPod                   = "Pod"
	kindScale                 = "Scale"
	kindReplicationController = "ReplicationController"
	kindClaim                 = "PersistentVolumeClaim"
)

// podsChange says whether the request determines what runs: the object's Pods, or the Pod itself, are new or would
// differ from what is stored. Rules on what runs need not be asked otherwise, and old objects that would not pass them
// can still be labelled, scaled to zero and finished.
//
// A ReplicaSet or a Job made by a controller is a copy of a workload that was judged, and its Pods are judged again.
func podsChange(r *Request) bool {
	t := r.Object.Template
	if t == nil || r.Object.Kind == kindReplicaSet {
		return false
	}
	if r.Object.Kind == kindJob && isMadeByWorkload(r.Object) {
		return false
	}
	if r.Old == nil {
		return true
	}
	if !workload.Equal(t.Spec, r.Old.Template.Spec) {
		return true
	}
	// A Pod's own metadata changes all the time and changes nothing that runs; a template's makes new Pods.
	return r.Object.Kind != kindPod && !workload.Equal(t.Meta, r.Old.Template.Meta)
}
