package reaper

import (
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// A namespace that the policy leaves out of a prefix is none of the reaper's, whatever its labels say, and is not
// watched.
func TestLeftOut(t *testing.T) {
	policy := examplePolicy(t)
	w := &worker{Options: Options{Policy: fixedPolicy{policy}, Namespace: "dexorder-system"}}
	lab := &namespace{object: object{name: "agent-lab"}, labels: map[string]string{lifecycle.LabelAgentRole: "lab", lifecycle.LabelOrg: "dexorder"}}
	if why := w.foreign(lab, orgs(w.settings())); why != "" || !w.remembers("agent-lab") {
		t.Fatalf("without except: %q", why)
	}
	policy.Profiles[1].Namespaces.Except = []string{"agent-lab"}
	if why, want := w.foreign(lab, orgs(w.settings())), "the policy leaves it out"; why != want || w.remembers("agent-lab") {
		t.Errorf("%q, want %q; and is remembered: %v", why, want, w.remembers("agent-lab"))
	}
	if lab.name = "agent-labs"; w.foreign(lab, orgs(w.settings())) != "" {
		t.Error("another namespace is left out")
	}
}
