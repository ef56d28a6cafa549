package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// An agent runs as one of the accounts that the profile allows, and has that account's token mounted only where the
// profile allows it: a user agent's own container has no way to the API server's trust.
var serviceAccount = Rule{
	ID:          "service-account",
	Summary:     "agents run as allowed service accounts, with a token only where allowed",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ServiceAccounts.Enforcement },
	applies:     podsChange,
	check:       checkServiceAccount,
}

func checkServiceAccount(p *Profile, r *Request) []Violation {
	rule, template := p.file.Rules.ServiceAccounts, r.Object.Template
	account := template.Spec.ServiceAccountName
	if account == "" {
		account = template.Spec.DeprecatedServiceAccount
	}
	if account == "" {
		account = "default"
	}
	var found []Violation
	if !allowsName(rule.Names, agentOf(r), account) {
		found = append(found, violation(template.Field("spec.serviceAccountName"), "is %q; allowed: %s",
			account, namesFor(rule.Names, agentOf(r))))
	}
	mount := template.Spec.AutomountServiceAccountToken
	if !*rule.MountToken && (mount == nil || *mount) {
		found = append(found, violation(template.Field("spec.automountServiceAccountToken"), "%s, must be false", isValue(mount)))
	}
	return found
}
