package reaper

import (
	"slices"
	"strings"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// remembers says of which namespaces the content matters to the reaper: those of role agents by name, and those that
// the policy covers.
func remembers(policy *v1alpha1.LifecyclePolicy, namespace string) bool {
	if policy.LeavesOut(namespace) {
		return false
	}
	return strings.HasPrefix(namespace, lifecycle.RoleNamespacePrefix) || covers(policy, namespace)
}

// covers says whether a profile of the policy covers a namespace.
func covers(policy *v1alpha1.LifecyclePolicy, namespace string) bool {
	return slices.ContainsFunc(policy.Profiles, func(p v1alpha1.Profile) bool { return p.Namespaces.Covers(namespace) })
}

// foreignTo is notOurs, and knows what the policy leaves out.
func foreignTo(policy *v1alpha1.LifecyclePolicy, n *namespace, orgs map[string]bool, own string) string {
	if policy.LeavesOut(n.name) {
		return "the policy leaves it out"
	}
	return notOurs(n, orgs, own)
}
