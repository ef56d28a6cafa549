package manifests

import (
	"testing"

	"github.com/dexorder/agent-lifecycle/offline"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// The examples are what people copy: the policy that is installed admits them.
func TestExamplesAreAdmitted(t *testing.T) {
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(file)
	if err != nil {
		t.Fatal(err)
	}
	judge := offline.Judge{Policy: rules, Namespace: "default"}

	sources, errs := manifest.Sources([]string{"examples"}, nil)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	outcomes := map[offline.Outcome]int{}
	for _, source := range sources {
		documents, err := source.Documents()
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range documents {
			for _, object := range document.Objects {
				verdict := judge.Check(object)
				outcomes[verdict.Outcome]++
				for _, reason := range verdict.Reasons {
					t.Errorf("%s: %s", object.Name, reason)
				}
			}
		}
	}
	if outcomes[offline.Admitted] != len(sources) || outcomes[offline.Denied]+outcomes[offline.NotUnderstood] > 0 {
		t.Errorf("%d files with outcomes %v, want one agent admitted in each", len(sources), outcomes)
	}
}
