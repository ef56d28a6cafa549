package reaper

import (
	"fmt"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Outlook is what the reaper does to an object by one policy, if nothing but time changes. It follows from what the
// reaper has read and noted; each deletion is decided once more by a live look, which may keep the object.
type Outlook struct {
	// At is when the reaper deletes the object at the earliest; zero if it does not.
	At time.Time `json:"at,omitzero"`

	// Reason says why the reaper deletes the object, or why not.
	Reason string `json:"reason"`

	// CapExceeded says that a pass would delete more than the policy's cap allows, and so deletes nothing of this kind.
	CapExceeded bool `json:"capExceeded,omitempty"`

	// Retain is how long the content of a deleted namespace is kept, RetainSecrets whether the values of its Secrets
	// are, too.
	Retain        metav1.Duration `json:"retain,omitzero"`
	RetainSecrets bool            `json:"retainSecrets,omitempty"`

	// candidate says that the next passes count the object against the cap; else its time has not come.
	candidate bool
}

// reaped says whether the object is deleted.
func (o *Outlook) reaped() bool { return !o.At.IsZero() && !o.CapExceeded }

// unreaped says why a mode of the policy keeps the reaper from deleting, or "" if it does not. field is the mode's in
// the policy file.
func unreaped(settings *v1alpha1.Reaper, mode v1alpha1.ReaperMode, field string) string {
	switch {
	case mode != v1alpha1.ReaperDelete:
		return fmt.Sprintf("%s is %s", field, mode)
	case settings.DryRun:
		return "reaper.dryRun is true"
	}
	return ""
}

// namespaceOutlook is that of a role agent's namespace. own is the system's namespace.
func namespaceOutlook(f *facts, policy *v1alpha1.LifecyclePolicy, own string, now time.Time) Outlook {
	n, settings := f.namespace, &policy.Reaper
	if why := foreignTo(policy, n, orgs(settings), own); why != "" {
		return Outlook{Reason: why}
	}
	v := decideNamespace(f, settings, now)
	switch v.phase {
	case Idle, Ready, Marked, Dismantled:
	default:
		return Outlook{Reason: v.reason}
	}
	if why := unreaped(settings, settings.Namespaces.Mode, "reaper.namespaces.mode"); why != "" {
		return Outlook{Reason: why}
	}
	w := writer{n: n, now: now}
	idle := idlenessOf(n, w.activity(f.changedAt(now)), now)
	return Outlook{
		At: idle.deletedAt(settings, now), Reason: v.reason, candidate: v.phase != Idle,
		Retain: settings.Namespaces.Retain, RetainSecrets: settings.Namespaces.RetainSecrets && settings.Namespaces.Retain.Duration > 0,
	}
}

// agentOutlook is that of a Deployment some of whose Pods ended with 42. is says whether it is an agent of the policy.
func agentOutlook(d *workload, ended []*pod, policy *v1alpha1.LifecyclePolicy, now time.Time) (o Outlook, is bool) {
	a, is := agentOf(policy, d)
	if !is {
		return Outlook{Reason: "it is no agent of the policy"}, false
	}
	if why := unreaped(&policy.Reaper, policy.Reaper.Agents.Mode, "reaper.agents.mode"); why != "" {
		return Outlook{Reason: why}, true
	}
	for _, p := range ended {
		at, reason := forgottenAt(a, p, now)
		if o.At.IsZero() || !at.IsZero() && at.Before(o.At) {
			o = Outlook{At: at, Reason: reason, candidate: at.Equal(now)}
		}
	}
	return o, true
}

// forgottenAt is when an agent that ended with 42 goes: now, or once its sidecar has had its time. Zero if it does not.
func forgottenAt(a *agent, p *pod, now time.Time) (at time.Time, reason string) {
	goes, reason := decideForgotten(a, p, now)
	if goes {
		return now, reason
	}
	if p.ended == nil {
		return time.Time{}, reason
	}
	later := p.ended.finished.Add(a.policy.Reaper.Agents.After.Duration)
	if goes, why := decideForgotten(a, p, later); goes && later.After(now) {
		return later, why
	}
	return time.Time{}, reason
}

// claimOutlook is that of a claim that names its agent.
func claimOutlook(c *claim, deployed, mounted bool, policy *v1alpha1.LifecyclePolicy, now time.Time) Outlook {
	if !covers(policy, c.namespace) {
		return Outlook{Reason: "the policy does not cover its namespace"}
	}
	if why := unreaped(&policy.Reaper, policy.Reaper.Claims.Mode, "reaper.claims.mode"); why != "" {
		return Outlook{Reason: why}
	}
	return orphanOutlook(c.orphanedSince, now, func(since string, now time.Time) orphan {
		noted := *c
		noted.orphanedSince = since
		return decideOrphanedClaim(&noted, deployed, mounted, policy, now)
	})
}

// leftoverOutlook is that of an object that an agent's Pod made, in a namespace of the reaper's.
func leftoverOutlook(l *leftover, around *surroundings, policy *v1alpha1.LifecyclePolicy, now time.Time) Outlook {
	settings := &policy.Reaper
	if why := unreaped(settings, settings.Leftovers.Mode, "reaper.leftovers.mode"); why != "" {
		return Outlook{Reason: why}
	}
	return orphanOutlook(l.annotations[lifecycle.AnnotationOrphanedSince], now, func(since string, now time.Time) orphan {
		noted := *l
		noted.annotations = maps.Clone(l.annotations)
		if noted.annotations == nil {
			noted.annotations = map[string]string{}
		}
		noted.annotations[lifecycle.AnnotationOrphanedSince] = since
		return decideLeftover(&noted, around, &settings.Leftovers, now)
	})
}

// mostWaits is how often an orphan's decision waits for a time at most: for the last write to be long ago, then for
// having been seen.
const mostWaits = 4

// orphanOutlook follows what passes decide and note of an orphan, from one time at which the decision may change to the
// next. since is what is noted now.
func orphanOutlook(since string, now time.Time, decide func(since string, now time.Time) orphan) Outlook {
	first := decide(since, now)
	o, at := first, now
	for range mostWaits {
		if o.goes {
			return Outlook{At: at, Reason: o.reason, candidate: at.Equal(now)}
		}
		if !o.next.After(at) {
			break
		}
		since, at = o.since, o.next
		o = decide(since, at)
	}
	return Outlook{Reason: first.reason}
}

// applyCap keeps what is deleted otherwise where a pass would delete more than limit: that deletes nothing.
func applyCap(outlooks []*Outlook, limit int) {
	candidates := 0
	for _, o := range outlooks {
		if o.candidate {
			candidates++
		}
	}
	if candidates <= limit {
		return
	}
	for _, o := range outlooks {
		if !o.At.IsZero() {
			o.CapExceeded = true
			o.Reason += fmt.Sprintf("; %d would go at once, more than %d: "+
				"nothing is deleted until there are fewer, or the policy's reaper.cap allows it", candidates, limit)
		}
	}
}
