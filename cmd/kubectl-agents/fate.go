package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// fate is what becomes of a role agent's namespace that is idle.
type fate struct {
	// spared is why the reaper does not delete it; "" if it does.
	spared string

	// at is when it does at the earliest, by after, if it is not spared.
	at    time.Time
	after time.Duration

	// kept says whether anything is kept of it; "" if that is not known.
	kept string
}

// fateOf judges by the policy in force, or by the error of reading that. org is the namespace's, and idle is since when nothing runs there.
func fateOf(file *v1alpha1.LifecyclePolicy, err error, org string, idle time.Time) fate {
	switch {
	case errors.Is(err, fleet.ErrNotInstalled):
		return fate{spared: fmt.Sprintf("Nothing deletes it until the system is installed (%v).", err)}
	case err != nil:
		return fate{spared: fmt.Sprintf("When it is deleted, and whether it is kept for a while, cannot be said: %v.", err)}
	}
	reaper := &file.Reaper
	n := &reaper.Namespaces
	f := fate{at: idle.Add(n.IdleAfter.Duration), after: n.IdleAfter.Duration}
	switch {
	case !slices.Contains(n.Orgs, org):
		f.spared = fmt.Sprintf("The reaper leaves it alone, since its label %s is %q, and the policy's reaper.namespaces.orgs lists %s.",
			lifecycle.LabelOrg, org, orNone(n.Orgs))
	case n.Mode == v1alpha1.ReaperOff:
		f.spared = "The reaper leaves it alone, as long as the policy says reaper.namespaces.mode: Off."
	case n.Mode == v1alpha1.ReaperDryRun:
		f.spared = "The reaper only says that it would delete it, as long as the policy says reaper.namespaces.mode: DryRun."
	case reaper.DryRun:
		f.spared = "The reaper only says that it would delete it, as long as the policy says reaper.dryRun: true."
	}
	secrets := "the values of its Secrets are not"
	if n.RetainSecrets {
		secrets = "the values of its Secrets too"
	}
	if n.Retain.Duration > 0 {
		f.kept = fmt.Sprintf("Its objects and volumes are kept for %s from then on (reaper.namespaces.retain), %s: see kubectl agents restore.",
			n.Retain.Duration, secrets)
	} else {
		f.kept = "Nothing of it is kept (reaper.namespaces.retain is 0s): what is in its volumes is gone for good, unless their storage class retains them."
	}
	return f
}

// when says in a sentence when the reaper does what it does to the namespace.
func (f fate) when(does string) string {
	if f.spared != "" {
		return f.spared
	}
	return fmt.Sprintf("The reaper %s, at the earliest at %s (reaper.namespaces.idleAfter is %s).", does, f.at.Local().Format(time.RFC3339), f.after)
}

func orNone(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// idleSince is from when on the reaper counts, by what it has noted on a namespace that is idle: what says nothing counts from now.
func idleSince(annotations map[string]string, now time.Time) time.Time {
	since, err := time.Parse(time.RFC3339, annotations[lifecycle.AnnotationIdleSince])
	if err != nil || since.After(now) {
		return now
	}
	if active, err := time.Parse(time.RFC3339, annotations[lifecycle.AnnotationLastPodActivity]); err == nil && active.After(since) {
		return active
	}
	return since
}
