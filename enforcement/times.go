package enforcement

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Enforced lists the rules that a policy file enforces.
func Enforced(file *v1alpha1.LifecyclePolicy) []Rule {
	var enforced []Rule
	for i := range file.Profiles {
		profile := &file.Profiles[i]
		for _, rule := range profile.Settings() {
			if rule.Enforcement == v1alpha1.Enforce {
				enforced = append(enforced, Rule{Key{profile.Name, rule.ID}, rule.Revision})
			}
		}
	}
	return enforced
}

// known are all rules, whatever a profile makes of them.
var known = (&v1alpha1.Profile{}).Settings()

// Times says since when the rules of a profile are enforced, for a verdict at that time. Rules that always were have no
// entry: those of the first revision as long as nothing is recorded, and later what the record says.
func (r *Record) Times(profile string, now time.Time) map[string]policy.RuleTime {
	warns := now.Before(r.WarnUntil)
	var times map[string]policy.RuleTime
	for _, rule := range known {
		since, recorded := r.Since[Key{profile, rule.ID}]
		if recorded && since.IsZero() || r.Revision == 0 && rule.Revision <= firstRevision {
			continue
		}
		if times == nil {
			times = map[string]policy.RuleTime{}
		}
		times[rule.ID] = policy.RuleTime{Since: metav1.NewTime(since), WarnOnly: warns && rule.Revision > r.WarnAbove}
	}
	return times
}
