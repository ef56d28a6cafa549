package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/dexorder/agent-lifecycle/enforcement"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// RuleTimes reads since when rules are enforced. An error comes with the empty record, by which a verdict on a Pod goes
// where the servers have none either.
func (c *Cluster) RuleTimes(ctx context.Context) (enforcement.Record, error) {
	return enforcement.Read(ctx, c.client.CoreV1().ConfigMaps(c.system))
}

// Hold makes the judge take into account since when its rules are enforced. For a policy that is not in force it is what
// the record would become if it were, from now on.
func (j *Judge) Hold(record enforcement.Record, now time.Time, inForce bool) {
	if !inForce {
		record, _ = enforcement.Next(record, enforcement.Situation{
			Now: now, Rules: enforcement.Enforced(j.file), Revision: v1alpha1.RulesRevision,
		})
	}
	j.times = func(profile string) map[string]policy.RuleTime { return record.Times(profile, now) }
}

// timesOf are the times of the rules in a namespace; nil where the judge was told of none.
func (j *Judge) timesOf(namespace string) map[string]policy.RuleTime {
	profile := j.policy.Profile(namespace)
	if j.times == nil || profile == nil {
		return nil
	}
	return j.times(profile.Name())
}

// InForce is a rule that is not enforced on every agent that runs.
type InForce struct {
	Profile string `json:"profile"`
	Rule    string `json:"rule"`

	// Since is when enforcement began: Pods of older agents are only warned about.
	Since time.Time `json:"since"`
}

// rulesInForce lists the rules of a record that have not always been in force, in order.
func rulesInForce(record enforcement.Record) []InForce {
	var all []InForce
	for key, since := range record.Since {
		if !since.IsZero() {
			all = append(all, InForce{key.Profile, key.Rule, since})
		}
	}
	slices.SortFunc(all, func(a, b InForce) int { return cmp.Or(cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Rule, b.Rule)) })
	return all
}

// DescribeRules fills in what a basis says of the rules: by the judge's policy, and by the record where it could be read.
func (b *Basis) DescribeRules(j *Judge, record enforcement.Record, problem error) {
	b.RulesRevision, b.AuditedOnly = j.file.RulesRevision, j.file.AuditedRules()
	b.InForce = rulesInForce(record)
	if problem != nil {
		b.RecordProblem = problem.Error()
	}
}
