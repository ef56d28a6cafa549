package policy_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/dexorder/agent-lifecycle/policy"
)

var update = flag.Bool("update", false, "write the verdicts of the fixtures anew; read the difference before you commit it")

// Each directory of testdata but base is named for a rule. A file allow-NAME.yaml there is a request that passes,
// deny-NAME.yaml one that this rule refuses. One that other rules refuse too is called deny-NAME.also.yaml.
const (
	allowPrefix = "allow-"
	denyPrefix  = "deny-"
	alsoSuffix  = ".also.yaml"
)

func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		rule, name := filepath.Base(filepath.Dir(file)), filepath.Base(file)
		if rule == "base" {
			continue
		}
		t.Run(rule+"/"+name, func(t *testing.T) {
			f := readFixture(t, file)
			p := f.policy(t)
			r, injected := f.request(t, p)
			got, v := judge(p, r, injected)
			checkName(t, rule, name, v)
			if f.Why == "" {
				t.Error("why: the fixture does not say what it shows")
			}
			if *update {
				got.write(t, file)
				return
			}
			if diff := cmp.Diff(f.Verdict, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("verdict (-want +got):\n%s", diff)
			}
		})
	}
}

// checkName holds the file's name to the verdict.
func checkName(t *testing.T, rule, name string, v policy.Verdict) {
	t.Helper()
	denied := map[string]bool{}
	for _, d := range v.Denials {
		denied[d.Rule] = true
	}
	switch {
	case strings.HasPrefix(name, allowPrefix):
		if !v.Allowed() {
			t.Errorf("is refused:\n%s", v.Message())
		}
	case strings.HasPrefix(name, denyPrefix):
		if !denied[rule] {
			t.Errorf("is not refused by %s:\n%s", rule, v.Message())
		}
		if also := len(denied) > 1; also != strings.HasSuffix(name, alsoSuffix) {
			t.Errorf("the name must end in %q if, and only if, other rules refuse it too:\n%s", alsoSuffix, v.Message())
		}
	default:
		t.Errorf("the name must begin with %q or %q", allowPrefix, denyPrefix)
	}
}

// TestEveryRuleHasFixtures fails for a rule that nothing shows at work, and for fixtures of a rule that is gone.
func TestEveryRuleHasFixtures(t *testing.T) {
	var ids []string
	for _, rule := range policy.Rules() {
		ids = append(ids, rule.ID)
		for _, prefix := range []string{allowPrefix, denyPrefix} {
			if files, _ := filepath.Glob(filepath.Join("testdata", rule.ID, prefix+"*.yaml")); len(files) == 0 {
				t.Errorf("testdata/%s has no %s*.yaml", rule.ID, prefix)
			}
		}
		if rule.Summary == "" {
			t.Errorf("rule %s has no summary", rule.ID)
		}
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(ids))); len(sorted) != len(ids) {
		t.Errorf("an id is used twice: %q", ids)
	}
	entries, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && e.Name() != "base" && e.Name() != "fuzz" && !slices.Contains(ids, e.Name()) {
			t.Errorf("testdata/%s: there is no such rule", e.Name())
		}
	}
}
