package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/reaper"
)

func TestReapingText(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	changes := &reaper.Changes{
		Changes: []*reaper.Change{
			{
				Kind: "Namespace", Name: "agent-ceo", News: []reaper.News{reaper.ReapedEarlier, reaper.KeptLess},
				Today: reaper.Outlook{At: now.Add(time.Hour), Reason: "idle", Retain: metav1.Duration{Duration: time.Hour}, RetainSecrets: true},
				Then:  reaper.Outlook{At: now, Reason: "idle"},
			},
			{
				Kind: "ConfigMap", Namespace: "agent-cto", Name: "x", News: []reaper.News{reaper.NewlyHeld},
				Today: reaper.Outlook{Reason: "its user type\x1b[2J"}, Then: reaper.Outlook{At: now, CapExceeded: true, Reason: "too many"},
			},
		},
		NotRead: []string{"claims: list persistentvolumeclaims: not for you"},
	}
	want := `Namespace agent-ceo: deleted earlier by the reaper, kept for less after its deletion
  by new.yaml: deleted at once: idle
  today: deleted at the earliest at 2026-05-01T13:00:00Z, and kept for 1h0m0s with the values of its Secrets: idle
agent-cto/ConfigMap x: newly to be deleted by the reaper, and held by its cap
  by new.yaml: held by the cap: too many
  today: stays: its user type\x1b[2J
what the reaper would do otherwise is not known of claims: list persistentvolumeclaims: not for you
compared with today: 0 newly deleted by the reaper, 0 no longer, 1 earlier, 0 later, 1 newly held by its cap; 1 kept for less, 0 for more
`
	if got := reapingText(changes, "new.yaml", now); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if got, want := reapingText(&reaper.Changes{}, "new.yaml", now), "the reaper would do the same as today\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	var out bytes.Buffer
	w := fleet.NewJSONWriter(&out, fleet.Basis{Preview: true})
	if err := w.Add(fleet.Addition{Key: "reaper", Value: changes}); err != nil {
		t.Fatal(err)
	}
	if err := w.End(fleet.Summary{}); err != nil {
		t.Fatal(err)
	}
	var read struct {
		Workloads []fleet.Report
		Summary   *fleet.Summary
		Reaper    reaper.Changes
	}
	if err := json.Unmarshal(out.Bytes(), &read); err != nil || read.Workloads == nil || read.Summary == nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if got := reapingText(&read.Reaper, "new.yaml", now); got != want {
		t.Errorf("programs read\n%s", got)
	}
}
