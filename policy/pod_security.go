package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// The Pod Security Standard of the profile, in the version that the policy pins, by Kubernetes' own checks
// (k8s.io/pod-security-admission, KEP-2579). It is asked of templates as well as of Pods: the built-in admission
// plugin only warns about a template, and its user would learn of a refused Pod from an event.
var podSecurity = Rule{
	ID:          "pod-security",
	Summary:     "the Pod Security Standard of the profile",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.PodSecurity.Enforcement },
	applies:     podsChange,
	check:       checkPodSecurity,
}

func checkPodSecurity(p *Profile, r *Request) []Violation {
	template, standard := r.Object.Template, p.podSecurity
	var found []Violation
	for _, result := range standard.evaluator.EvaluatePod(standard.level, template.Meta, template.Spec) {
		if result.Allowed {
			continue
		}
		detail := result.ForbiddenReason
		if result.ForbiddenDetail != "" {
			detail += " (" + result.ForbiddenDetail + ")"
		}
		found = append(found, violation(template.Field("spec"), "violates Pod Security %s: %s", standard.level, Printable(truncate(detail))))
	}
	return found
}
