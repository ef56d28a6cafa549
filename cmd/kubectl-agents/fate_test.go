package main

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// What a namespace's end is said to be follows the policy, to the letter where it is about loss.
func TestFate(t *testing.T) {
	idle := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const (
		gone = "Nothing of it is kept (reaper.namespaces.retain is 0s): what is in its volumes is gone for good, unless their storage class retains them."
		kept = "Its objects and volumes are kept for 72h0m0s from then on (reaper.namespaces.retain), "
	)
	at := func(after time.Duration) string {
		return fmt.Sprintf("The reaper deletes it, at the earliest at %s (reaper.namespaces.idleAfter is %s, reaper.sightings 2, and reaper.interval 1m0s).",
			idle.Add(after+2*time.Minute).Local().Format(time.RFC3339), after)
	}
	for name, tc := range map[string]struct {
		reaper, org string
		err         error
		when, kept  string
	}{
		"as by default":   {"namespaces: {orgs: [a, b]}", "b", nil, at(time.Hour), gone},
		"kept":            {"namespaces: {orgs: [a], idleAfter: 30m, retain: 72h}", "a", nil, at(30 * time.Minute), kept + "the values of its Secrets are not: see kubectl agents restore."},
		"with Secrets":    {"namespaces: {orgs: [a], retain: 72h, retainSecrets: true}", "a", nil, at(time.Hour), kept + "the values of its Secrets too: see kubectl agents restore."},
		"of another org":  {"namespaces: {orgs: [a, b]}", "c", nil, `The reaper leaves it alone, since its label org is "c", and the policy's reaper.namespaces.orgs lists a, b.`, gone},
		"no org is ours":  {"dryRun: false", "", nil, `The reaper leaves it alone, since its label org is "", and the policy's reaper.namespaces.orgs lists none.`, gone},
		"off":             {"namespaces: {orgs: [a], mode: Off}", "a", nil, "The reaper leaves it alone, as long as the policy says reaper.namespaces.mode: Off.", gone},
		"a dry run":       {"namespaces: {orgs: [a], mode: DryRun}", "a", nil, "The reaper only says that it would delete it, as long as the policy says reaper.namespaces.mode: DryRun.", gone},
		"a dry run of it": {"dryRun: true, namespaces: {orgs: [a]}", "a", nil, "The reaper only says that it would delete it, as long as the policy says reaper.dryRun: true.", gone},
		"not installed":   {"", "a", fmt.Errorf("%w: no", fleet.ErrNotInstalled), "Nothing deletes it until the system is installed (the system is not installed: no).", ""},
		"not readable":    {"", "a", errors.New("forbidden"), "When it is deleted, and whether it is kept for a while, cannot be said: forbidden.", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var file *v1alpha1.LifecyclePolicy
			if tc.err == nil {
				file = policyOf(t, tc.reaper)
			}
			f := fateOf(file, tc.err, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{lifecycle.LabelOrg: tc.org}}}, false, idle)
			if got := f.when("deletes it"); got != tc.when {
				t.Errorf("when: %s\nwant: %s", got, tc.when)
			}
			if f.kept != tc.kept {
				t.Errorf("kept: %s\nwant: %s", f.kept, tc.kept)
			}
		})
	}
}

// policyOf is a policy with a reaper.
func policyOf(t *testing.T, reaper string) *v1alpha1.LifecyclePolicy {
	t.Helper()
	text, err := os.ReadFile("testdata/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file, err := v1alpha1.Decode(append(text, "\nreaper: {"+reaper+"}\n"...))
	if err != nil {
		t.Fatal(err)
	}
	return file
}
