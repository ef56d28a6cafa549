package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// By default (enableServiceLinks) the kubelet gives every container eight variables for each Service of the namespace. An
// agent would read its neighbours' names and addresses in its environment; and from about 3,300 Services on the
// environment is larger than execve takes, so that no container of the namespace starts.
//
// The rule is asked of agents, which are injected with false. Jobs and other workloads of role agents are not changed by
// injection, and their namespace holds no neighbour's Services: refusing them for a default would help nobody.
var serviceLinks = Rule{
	ID:          "service-links",
	Summary:     "agents are not told of the namespace's Services by their environment",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ServiceLinks.Enforcement },
	applies:     func(r *Request) bool { return podsChange(r) && isAgent(r) },
	check:       checkServiceLinks,
}

func checkServiceLinks(_ *Profile, r *Request) []Violation {
	template := r.Object.Template
	if links := template.Spec.EnableServiceLinks; links == nil || *links {
		return []Violation{violation(template.Field("spec.enableServiceLinks"), "%s, must be false", isValue(links))}
	}
	return nil
}
