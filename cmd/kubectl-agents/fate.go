package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// fate is what becomes of a role agent's namespace that is idle.
type fate struct {
	// spared is why the reaper does not delete it; "" if it does.
	spared string

	// at is when it does at the earliest, if it is not spared; of the policy's times, after is how long it is idle
	// before, and passes are how many of the reaper's, each interval apart, have to see it so and mark it.
	at              time.Time
	after, interval time.Duration
	passes          int

	// kept says whether anything is kept of it; "" if that is not known.
	kept string
}

// fateOf judges by the policy in force, or by the error of reading that. idle says that nothing runs in the namespace
// already, so that what the reaper has noted on it counts; else it is idle from now on.
func fateOf(file *v1alpha1.LifecyclePolicy, err error, namespace *corev1.Namespace, idle bool, now time.Time) fate {
	switch {
	case errors.Is(err, fleet.ErrNotInstalled):
		return fate{spared: fmt.Sprintf("Nothing deletes it until the system is installed (%v).", err)}
	case err != nil:
		return fate{spared: fmt.Sprintf("When it is deleted, and whether it is kept for a while, cannot be said: %v.", err)}
	}
	settings := &file.Reaper
	n, org := &settings.Namespaces, namespace.Labels[lifecycle.LabelOrg]
	f := fate{
		at: reaper.DeletedAt(namespace, settings, idle, now), after: n.IdleAfter.Duration, interval: settings.Interval.Duration, passes: int(settings.Sightings),
	}
	switch {
	case file.LeavesOut(namespace.Name):
		f.spared = "The reaper leaves it alone, since the policy leaves it out (namespaces.except)."
	case !slices.Contains(n.Orgs, org):
		f.spared = fmt.Sprintf("The reaper leaves it alone, since its label %s is %q, and the policy's reaper.namespaces.orgs lists %s.",
			lifecycle.LabelOrg, org, orNone(n.Orgs))
	case n.Mode == v1alpha1.ReaperOff:
		f.spared = "The reaper leaves it alone, as long as the policy says reaper.namespaces.mode: Off."
	case n.Mode == v1alpha1.ReaperDryRun:
		f.spared = "The reaper only says that it would delete it, as long as the policy says reaper.namespaces.mode: DryRun."
	case settings.DryRun:
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
	return fmt.Sprintf("The reaper %s, at the earliest at %s (%s).", does, f.at.Local().Format(time.RFC3339), f.times())
}

// times names the policy's times that the fate follows from.
func (f fate) times() string {
	return fmt.Sprintf("reaper.namespaces.idleAfter is %s, reaper.sightings %d, and reaper.interval %s", f.after, f.passes, f.interval)
}

func orNone(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}
