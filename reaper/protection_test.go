package reaper

import (
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// It takes the name and both labels to be the reaper's.
func TestNotOurs(t *testing.T) {
	const (
		foreignName = "its name does not start with agent-"
		noRole      = "it has no label agent-role"
	)
	role := map[string]string{lifecycle.LabelAgentRole: "ceo", lifecycle.LabelOrg: "dexorder"}
	of := func(org string) map[string]string {
		return map[string]string{lifecycle.LabelAgentRole: "ceo", lifecycle.LabelOrg: org}
	}
	for _, tc := range []struct {
		name   string
		labels map[string]string
		want   string
	}{
		{"agent-ceo", role, ""},
		{"agent-ceo", of("genbrain"), ""},
		{"kube-system", role, foreignName},
		{"kube-public", role, foreignName},
		{"default", role, foreignName},
		{"dexorder-agents", role, foreignName},
		{"dexorder-system", role, foreignName},
		{"agent-system", role, "it is the system's own"},
		{"agent-", role, foreignName},
		{"agent", role, foreignName},
		{"agents-x", role, foreignName},
		{"xagent-y", role, foreignName},
		{"Agent-x", role, foreignName},
		{"", role, foreignName},
		{"agent-ceo", nil, noRole},
		{"agent-ceo", map[string]string{lifecycle.LabelOrg: "dexorder"}, noRole},
		{"agent-ceo", map[string]string{lifecycle.LabelOrg: "dexorder", lifecycle.LabelAgentRole: ""}, noRole},
		{"agent-ceo", map[string]string{lifecycle.LabelAgentRole: "ceo"}, `its label org is "", which is none of the policy's`},
		{"agent-ceo", of("acme"), `its label org is "acme", which is none of the policy's`},
		{"agent-ceo", of("Dexorder"), `its label org is "Dexorder", which is none of the policy's`},
	} {
		n := &namespace{object: object{name: tc.name}, labels: tc.labels}
		if got := notOurs(n, orgs(&examplePolicy(t).Reaper), "agent-system"); got != tc.want {
			t.Errorf("%s with %v: %q, want %q", tc.name, tc.labels, got, tc.want)
		}
		if notOurs(n, orgs(&v1alpha1.Reaper{}), "agent-system") == "" {
			t.Errorf("%s with %v is ours, though the policy lists no org", tc.name, tc.labels)
		}
	}
}

func TestAllowed(t *testing.T) {
	for _, tc := range []struct{ count, percent, of, want int }{
		{50, 25, 0, 5},
		{50, 25, 4, 5},
		{50, 25, 20, 5},
		{50, 25, 23, 5},
		{50, 25, 24, 6},
		{50, 25, 100, 25},
		{50, 25, 200, 50},
		{50, 25, 10000, 50},
		{50, 100, 30, 30},
		{3, 100, 10000, 3}, // the count is a bound in any case
		{50, 1, 99, 5},
	} {
		limits := &v1alpha1.Cap{Count: int32(tc.count), Percent: int32(tc.percent)}
		if got := allowed(limits, tc.of); got != tc.want {
			t.Errorf("count %d, percent %d, of %d: %d, want %d", tc.count, tc.percent, tc.of, got, tc.want)
		}
	}
}
