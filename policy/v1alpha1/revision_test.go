package v1alpha1

import (
	"slices"
	"strings"
	"testing"
)

// A file of an earlier revision says nothing of a rule that came later: it is audited. One that names the rule's
// enforcement, or the rule's revision, has its will.
func TestRuleNewerThanTheFile(t *testing.T) {
	for _, tt := range []struct {
		name, from, to string
		serviceLinks   Enforcement
		audited        []string
	}{
		{"no revision", "", "", Audit, []string{"service-links", "object-size"}},
		{"revision 1", "sidecar:", "rulesRevision: 1\nsidecar:", Audit, []string{"service-links", "object-size"}},
		{"revision 2", "sidecar:", "rulesRevision: 2\nsidecar:", Enforce, nil},
		{"written out", "rules:", "rules:\n      service-links: {enforcement: enforce}", Enforce, []string{"object-size"}},
		{"settings without enforcement", "rules:", "rules:\n      object-size: {maxEnv: 50}", Audit, []string{"service-links", "object-size"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := decode(t, strings.Replace(minimal, tt.from, tt.to, 1))
			if got := file.Profiles[0].Rules.ServiceLinks.Enforcement; got != tt.serviceLinks {
				t.Errorf("service-links is %s, want %s", got, tt.serviceLinks)
			}
			if got := file.Profiles[0].Rules.Volumes.Enforcement; got != Enforce {
				t.Errorf("volumes, of the first revision, is %s", got)
			}
			if got := file.AuditedRules(); !slices.Equal(got, tt.audited) {
				t.Errorf("audited are %v, want %v", got, tt.audited)
			}
		})
	}
}

// Every rule was added in a revision that this program knows, and the newest revision added one.
func TestRevisionsOfRules(t *testing.T) {
	newest := firstRulesRevision
	for _, rule := range (&Rules{}).all() {
		if rule.revision < newest || rule.revision > RulesRevision {
			t.Errorf("%s was added in revision %d, after one of revision %d; known are up to %d", rule.id, rule.revision, newest, RulesRevision)
		}
		newest = max(newest, rule.revision)
	}
	if newest != RulesRevision {
		t.Errorf("the newest rule is of revision %d; RulesRevision is %d", newest, RulesRevision)
	}
}
