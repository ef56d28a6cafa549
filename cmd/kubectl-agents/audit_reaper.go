package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// compareReaping adds to an audit what the reaper would do otherwise by the policy that is previewed. deletesMore says
// whether it would delete what it does not delete today, or keep less of it.
func (a *auditFlags) compareReaping(ctx context.Context, audit *fleet.Audit, w fleet.Writer) (bool, error) {
	config, err := a.unthrottled()
	if err != nil {
		return false, err
	}
	preview := &reaper.Preview{
		Config: config, System: a.clusterFlags.namespace, Then: audit.By.File(), Namespace: a.agents,
		Now: time.Now().UTC().Truncate(time.Second), // as precise as what the cluster notes
	}
	if audit.Today != nil {
		preview.Today = audit.Today.File()
	}
	changes, err := preview.Run(ctx)
	if err != nil {
		return false, fmt.Errorf("what the reaper would do otherwise: %w", err)
	}
	deletesMore := false
	for _, c := range changes.Changes {
		deletesMore = deletesMore || slices.Contains(c.News, reaper.NewlyReaped) || slices.Contains(c.News, reaper.KeptLess)
	}
	return deletesMore, w.Add(fleet.Addition{Key: "reaper", Value: changes, Text: reapingText(changes, a.policy, preview.Now)})
}

// reapingText says for people what the reaper would do otherwise by the policy of a file.
func reapingText(changes *reaper.Changes, file string, now time.Time) string {
	var text strings.Builder
	line := func(format string, args ...any) {
		fmt.Fprintln(&text, policy.Printable(fmt.Sprintf(format, args...)))
	}
	counts := map[reaper.News]int{}
	for _, c := range changes.Changes {
		name := c.Kind + " " + c.Name
		if c.Namespace != "" {
			name = c.Namespace + "/" + name
		}
		var news []string
		for _, n := range c.News {
			counts[n]++
			news = append(news, string(n))
		}
		line("%s: %s", name, strings.Join(news, ", "))
		line("  by %s: %s", file, outlookText(&c.Then, now))
		line("  today: %s", outlookText(&c.Today, now))
	}
	for _, what := range changes.NotRead {
		line("what the reaper would do otherwise is not known of %s", what)
	}
	switch {
	case len(changes.Changes) > 0:
		line("compared with today: %d newly deleted by the reaper, %d no longer, %d earlier, %d later, "+
			"%d newly held by its cap; %d kept for less, %d for more",
			counts[reaper.NewlyReaped], counts[reaper.NoLongerReaped], counts[reaper.ReapedEarlier], counts[reaper.ReapedLater],
			counts[reaper.NewlyHeld], counts[reaper.KeptLess], counts[reaper.KeptMore])
	case len(changes.NotRead) == 0:
		line("the reaper would do the same as today")
	}
	return text.String()
}

// outlookText says what the reaper does to an object, and why.
func outlookText(o *reaper.Outlook, now time.Time) string {
	does := "stays"
	switch {
	case o.CapExceeded:
		does = "held by the cap"
	case o.At.IsZero():
	case o.At.After(now):
		does = "deleted at the earliest at " + o.At.UTC().Format(time.RFC3339)
	default:
		does = "deleted at once"
	}
	if o.Retain.Duration > 0 && !o.At.IsZero() {
		does += fmt.Sprintf(", and kept for %s", o.Retain.Duration)
		if o.RetainSecrets {
			does += " with the values of its Secrets"
		}
	}
	return does + ": " + o.Reason
}
