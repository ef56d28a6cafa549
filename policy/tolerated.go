package policy

import (
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// RuleTime says since when a rule is enforced in the namespaces of a profile.
type RuleTime struct {
	// Since is when enforcement began. Zero: it is not known, so that every workload counts as older than the rule.
	Since metav1.Time

	// WarnOnly says that nothing is refused by the rule yet. That is so while servers of a version that does not know the
	// rule may still answer /mutate: they do not inject what the rule asks for.
	WarnOnly bool
}

// tolerated returns why a violation of an enforced rule is only warned about; the reason is empty where it is not.
//
// It is about Pods whose workload was stored before the rule was in force, or before the policy covered its namespace.
// They must be able to come back after a crash or a drained node, or a new rule would kill work in progress.
//
// To compare the rule's time with the workload's creation is enough. A template that was written later was judged as a
// whole when it was written, whoever owns it: what it has against the rule it had before. Neither time is in the hands of
// a tenant or an agent: the API server writes creationTimestamp at creation and keeps it on updates, and the owner is
// found by UIDs that the cluster's controllers wrote.
//
// An update of a Pod does not make it worse: only what it had already is tolerated.
func (p *Profile) tolerated(r *Request) func(Violation) string {
	never := func(Violation) string { return "" }
	if p.file.Adoption != v1alpha1.AdoptionWarn || r.Object == nil || r.Object.Kind != kindPod || r.Facts == nil {
		return never
	}
	owner := r.Facts.Owner
	if r.Old == nil {
		if owner == nil || !p.isController(r) {
			return never
		}
		return func(v Violation) string { return p.older(r, owner, v.Rule) }
	}
	if owner == nil { // a Pod by itself: what matters is when it was created
		owner = &Owner{Kinds: []string{kindPod}, Name: r.Old.Meta.Name, Created: r.Old.Meta.CreationTimestamp}
	}
	var had map[Violation]bool
	return func(v Violation) string {
		reason := p.older(r, owner, v.Rule)
		if reason == "" {
			return ""
		}
		if had == nil {
			had = p.violationsBefore(r)
		}
		if !had[v] || v == andMore(v.Rule) { // among those that are left out there may be a new one
			return ""
		}
		return reason
	}
}

// older says why a workload is not held to a rule: it is older than the policy, or than the rule. Empty: it is held to it.
func (p *Profile) older(r *Request, owner *Owner, rule string) string {
	if owner.Kind() != kindPod && p.predates(owner) {
		return fmt.Sprintf("%s %q is older than the policy", owner.Kind(), owner.Name)
	}
	times, found := r.RuleTimes[rule]
	switch {
	case !found || owner.Created.IsZero():
		return ""
	case times.Since.IsZero():
		return fmt.Sprintf("it is not known whether %s %q is older than the rule", owner.Kind(), owner.Name)
	case owner.Created.Before(&times.Since):
		return fmt.Sprintf("%s %q is older than the rule, which is enforced since %s", owner.Kind(), owner.Name,
			times.Since.UTC().Format(time.RFC3339))
	}
	return ""
}

// violationsBefore are those of the stored object, as if it were created now.
func (p *Profile) violationsBefore(r *Request) map[Violation]bool {
	before := *r
	before.Operation, before.Object, before.Old = admissionv1.Create, r.Old, nil
	had := map[Violation]bool{}
	for _, rule := range rules {
		for _, v := range p.violations(rule, &before) {
			had[v] = true
		}
	}
	return had
}
