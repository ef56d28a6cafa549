package reaper

import (
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// A template that has an org or an environment is for no other.
func TestTemplateIsFor(t *testing.T) {
	n := &namespace{labels: map[string]string{lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: "test"}}
	for _, tc := range []struct {
		org, environment string
		want             bool
	}{
		{"", "", true},
		{"dexorder", "", true},
		{"dexorder", "test", true},
		{"genbrain", "", false},
		{"dexorder", "production", false},
		{"", "production", false},
	} {
		labels := map[string]string{lifecycle.LabelRoleTemplate: "ceo"}
		if tc.org != "" {
			labels[lifecycle.LabelOrg] = tc.org
		}
		if tc.environment != "" {
			labels[lifecycle.LabelEnvironment] = tc.environment
		}
		if got := isFor(labels, n); got != tc.want {
			t.Errorf("%+v: %t", tc, got)
		}
	}
}
