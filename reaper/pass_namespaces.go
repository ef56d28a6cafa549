package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// judged is a namespace of ours with what was decided.
type judged struct {
	*facts
	verdict
}

// orgs are the policy's, as a set.
func orgs(policy *v1alpha1.Reaper) map[string]bool {
	set := map[string]bool{}
	for _, org := range policy.Namespaces.Orgs {
		set[org] = true
	}
	return set
}

// passNamespaces looks at every namespace of role agents: it writes what was seen of it, marks those whose time has come, and has
// those taken apart that an earlier pass has marked.
func (w *worker) passNamespaces(ctx context.Context) Result {
	policy := w.settings()
	mode := w.mode(policy.Namespaces.Mode)
	result := Result{Reaper: "namespaces", Mode: string(mode)}
	forgotten := w.forgetLeftOut(ctx)
	if mode == v1alpha1.ReaperOff {
		w.approve(nil)
		result.Error = message(forgotten)
		return result
	}
	all, foreign := w.judgeAll(w.inventory.names(), policy)
	result.Examined = len(all)
	for why, n := range foreign {
		for range n {
			result.keep(why)
		}
	}
	if mode == v1alpha1.ReaperDelete && !w.DryRun {
		if err := w.onlyGranted(ctx, all); err != nil {
			result.Error = err.Error()
			return result
		}
	}
	w.meter(all)
	for i := range all {
		// What is being taken apart was counted when that began: a few that do not get further must not keep all others.
		if j := &all[i]; j.phase == Marked || j.phase == Dismantled && !w.isApproved(j.namespace.name) {
			result.Candidates++
		}
	}
	result.Cap = allowed(&policy.Cap, len(all))
	result.CapExceeded = result.Candidates > result.Cap
	var held error // a mark closes a namespace for Pods, and what is approved meanwhile would all go at once when the breaker is released
	if mode == v1alpha1.ReaperDelete && result.Candidates > 0 {
		held = w.closed(ctx)
	}
	approved := map[string]bool{}
	for i := range all {
		j := &all[i]
		if held != nil && j.reaps() && !w.isApproved(j.namespace.name) {
			j.annotations = withoutMark(j)
			j.phase, j.reason = Ready, held.Error()
		}
		w.tell(ctx, &result, j, mode)
		underWay := mode == v1alpha1.ReaperDelete && w.isApproved(j.namespace.name)
		switch {
		case j.reaps() && (mode != v1alpha1.ReaperDelete || result.CapExceeded) && !underWay:
			j.annotations = withoutMark(j)
		case j.phase == Dismantled:
			approved[j.namespace.name] = true
		}
	}
	if result.CapExceeded {
		w.capExceeded(ctx, &result)
	}
	if isOpen(held) {
		held = nil // which is no failure
	}
	result.Error = message(errors.Join(forgotten, held, w.writeAll(ctx, all)))
	w.approve(approved)
	return result
}

// onlyGranted keeps namespaces from being marked that do not let the reaper take them apart: a mark closes them for Pods.
func (w *worker) onlyGranted(ctx context.Context, all []judged) error {
	for i := range all {
		j := &all[i]
		if j.phase != Marked {
			continue
		}
		switch err := w.granted(ctx, j.namespace); {
		case errors.Is(err, errUngranted):
			j.annotations = withoutMark(j)
			j.phase, j.reason = Ungranted, err.Error()
		case err != nil:
			return fmt.Errorf("namespace %s: %w", j.namespace.name, err)
		}
	}
	return nil
}

// lookAgain judges some namespaces between two passes. It writes what was seen of them, and takes back what no longer holds; that a
// namespace is dead is for passes to find.
func (w *worker) lookAgain(ctx context.Context, names []string) {
	policy := w.settings()
	if w.mode(policy.Namespaces.Mode) == v1alpha1.ReaperOff {
		return
	}
	all, _ := w.judgeAll(names, policy)
	all = slices.DeleteFunc(all, func(j judged) bool { return j.reaps() || j.phase == Ready })
	result := Result{Reaper: "namespaces"}
	for i := range all {
		w.tell(ctx, &result, &all[i], policy.Namespaces.Mode)
	}
	if err := w.writeAll(ctx, all); err != nil && ctx.Err() == nil {
		w.Logger.WarnContext(ctx, "Namespaces could not be written; the next pass tries again", "error", err)
	}
}

func (w *worker) judgeAll(names []string, policy *v1alpha1.Reaper) (all []judged, foreign map[string]int) {
	ours, now := orgs(policy), w.Now()
	foreign = map[string]int{}
	for _, name := range names {
		f := w.inventory.facts(name)
		if f == nil {
			continue
		}
		if w.foreign(f.namespace, ours) != "" {
			foreign["not ours"]++
			continue
		}
		all = append(all, judged{f, decideNamespace(f, policy, now)})
	}
	return all, foreign
}

// tell says what becomes of a namespace, in the log and by an event.
func (w *worker) tell(ctx context.Context, result *Result, j *judged, mode v1alpha1.ReaperMode) {
	n := j.namespace
	d := Decision{Kind: "Namespace", Name: n.name, Verdict: string(j.phase), Reason: j.reason}
	if j.reaps() && mode == v1alpha1.ReaperDryRun {
		d.Verdict = "would be " + d.Verdict
	}
	// What looks idle and is spared is worth a word.
	quiet := j.phase == Active && !j.autoscaled || j.phase == Idle || j.phase == Protected
	if j.autoscaled {
		d.Reason = "an autoscaler keeps it: " + d.Reason
	}
	w.say(ctx, result, d, quiet)
	if !j.reaps() {
		result.keep(string(j.phase))
	}
	if j.stuck {
		w.Announcer.Announce(namespaceEvent(NamespaceStuck, n, n.deletedAt, j.reason))
	}
}

// withoutMark is what is still written of a namespace that must not be marked. A mark that is there stays: it is taken back by what
// lives, or by people.
func withoutMark(j *judged) map[string]*string {
	changes := maps.Clone(j.annotations)
	for _, key := range []string{lifecycle.AnnotationReaping, lifecycle.AnnotationSightings, lifecycle.AnnotationPhase} {
		delete(changes, key)
	}
	return changes
}

// writeAll writes what was decided, some at a time. What has changed meanwhile is looked at again by the next pass.
func (w *worker) writeAll(ctx context.Context, all []judged) error {
	if w.DryRun {
		return nil
	}
	var group errgroup.Group
	group.SetLimit(int(w.settings().Parallelism))
	var mu sync.Mutex
	var failed int
	var first error
	for i := range all {
		j := &all[i]
		if len(j.annotations) == 0 || ctx.Err() != nil {
			continue
		}
		group.Go(func() error {
			written, err := w.annotate(ctx, j.namespace, j.annotations)
			switch {
			case err == nil:
				w.inventory.written(written)
				w.announcePhase(j.namespace, written, j.reason)
			case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			default:
				mu.Lock()
				defer mu.Unlock()
				failed++
				if first == nil {
					first = fmt.Errorf("namespace %s: %w", j.namespace.name, err)
				}
			}
			return nil
		})
	}
	_ = group.Wait()
	if first != nil {
		return fmt.Errorf("%d namespaces could not be written, the first: %w", failed, first)
	}
	return context.Cause(ctx)
}

// announcePhase tells of the phase that was just written.
func (w *worker) announcePhase(before, after *namespace, reason string) {
	_, was := shownPhase(before)
	since, is := shownPhase(after)
	if was == "" {
		w.Announcer.Announce(namespaceEvent(NamespaceCreated, after, after.created, "an agent's namespace"))
	}
	if was == Marked && is != Marked {
		w.Announcer.Announce(namespaceEvent(NamespaceUnmarked, after, since, reason))
	}
	if t, has := phaseEvent(is); has && is != was {
		w.Announcer.Announce(namespaceEvent(t, after, since, reason))
	}
}

// states returns what every namespace and agent is at, as far as that began after since.
func (w *worker) states(since time.Time) []Event {
	var events []Event
	ours, now := orgs(w.settings()), w.Now()
	w.inventory.each(func(p *place) {
		if n := p.namespace; n != nil && w.foreign(n, ours) == "" {
			at, phase := shownPhase(n)
			_, marked := instant(n, lifecycle.AnnotationReaping, now)
			if n.deleting && marked && n.deletedAt.After(since) { // whoever deleted it may have died before it told
				events = append(events, namespaceEvent(NamespaceReaped, n, n.deletedAt, "nothing had run there"))
			} else if t, has := phaseEvent(phase); has && at.After(since) {
				events = append(events, namespaceEvent(t, n, at, n.annotations[lifecycle.AnnotationUnhealthy]))
			}
		}
		p.each(func(r record) {
			for _, e := range transitions(nil, r, w.inventory.deploymentUID, now) {
				if e.Time.After(since) {
					events = append(events, e)
				}
			}
		})
	})
	return events
}

// meter counts namespaces by phase.
func (w *worker) meter(all []judged) {
	phases := map[Phase]int{Ungranted: 0, Active: 0, Unhealthy: 0, Idle: 0, Ready: 0, Marked: 0, Dismantled: 0, Protected: 0, Terminating: 0}
	stuck := 0
	for i := range all {
		phases[all[i].phase]++
		if all[i].stuck {
			stuck++
		}
	}
	for phase, n := range phases {
		w.Metrics.namespaces.WithLabelValues(string(phase)).Set(float64(n))
	}
	w.Metrics.unhealthy.Set(float64(phases[Unhealthy]))
	w.Metrics.stuck.Set(float64(stuck))
}

// alwaysAllowed may be deleted by one pass however few there are: a percentage of little is nothing.
const alwaysAllowed = 5

// allowed is how much of what there is one pass may delete.
func allowed(limits *v1alpha1.Cap, of int) int {
	return min(int(limits.Count), max(alwaysAllowed, of*int(limits.Percent)/100))
}

func (w *worker) capExceeded(ctx context.Context, result *Result) {
	why := fmt.Sprintf("%d of %d %s would go, more than %d: nothing is deleted until there are fewer, or the policy's reaper.cap allows it",
		result.Candidates, result.Examined, result.Reaper, result.Cap)
	w.say(ctx, result, Decision{Kind: "Reaper", Name: result.Reaper, Verdict: "cap exceeded", Reason: why}, false)
	now := w.Now()
	w.mu.Lock()
	since, before := w.capSince[result.Reaper]
	if !before {
		since = now
		w.capSince[result.Reaper] = since
	}
	w.mu.Unlock()
	w.Announcer.Announce(Event{
		Type: CapExceeded, ID: string(CapExceeded) + "/" + result.Reaper + "/" + since.UTC().Format(time.RFC3339), Time: since,
		Kind: "Reaper", Namespace: w.Namespace, Name: result.Reaper, Reason: why,
		Candidates: result.Candidates, Allowed: result.Cap, Total: result.Examined,
	})
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// wrong is the error that a message tells of; nil for none.
func wrong(message string) error {
	if message == "" {
		return nil
	}
	return errors.New(message)
}
