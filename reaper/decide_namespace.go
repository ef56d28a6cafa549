package reaper

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Phase is how far a role agent's namespace has come on its way.
type Phase string

// The phases.
const (
	// Active: something runs there, or may.
	Active Phase = "active"

	// Unhealthy: something should run there and does not, or crashes, or is not ready for too long. It is never reaped.
	Unhealthy Phase = "unhealthy"

	// Idle: nothing runs there, and nothing wants to.
	Idle Phase = "idle"

	// Ready: it has been idle for long enough, and is to be marked once enough passes have seen it so.
	Ready Phase = "ready"

	// Ungranted: it would be marked, but does not let the reaper take it apart.
	Ungranted Phase = "ungranted"

	// Marked: the next pass may take it apart. It takes no new Pods and workloads.
	Marked Phase = "marked"

	// Dismantled: what is in it is being deleted, or will be before this pass ends.
	Dismantled Phase = "dismantled"

	// Protected: somebody has said that it must stay.
	Protected Phase = "protected"

	// Terminating: the API server is deleting it.
	Terminating Phase = "terminating"
)

const (
	// activityInterval is how often last-pod-activity is written at most.
	activityInterval = time.Minute

	// recovery is how long an agent that was unhealthy must be ready to count as healthy: one that crashes again and again is ready
	// in between.
	recovery = 2 * time.Minute

	// stuckAfter is how long a deletion may take until what holds it is reported.
	stuckAfter = 10 * time.Minute
)

// facts are what a decision on a namespace takes.
type facts struct {
	namespace *namespace
	pods      []*pod
	workloads []*workload
	claims    []*claim
	services  []*service
	scalers   []*scaler

	// podChanged is when a Pod there last appeared, changed or ended, as far as was seen; else zero.
	podChanged time.Time
}

// verdict is what becomes of a namespace.
type verdict struct {
	phase Phase

	// reason says why, for people.
	reason string

	// annotations to write; nil takes one off. Empty if nothing has changed.
	annotations map[string]*string

	// stuck says that its deletion takes too long; reason says what holds it.
	stuck bool

	// autoscaled says that nothing runs there, and that it is kept since an autoscaler may start something again.
	autoscaled bool
}

// reaps says whether the verdict counts as a deletion.
func (v *verdict) reaps() bool { return v.phase == Marked || v.phase == Dismantled }

// decideNamespace says what becomes of a role agent's namespace that is ours.
//
// Nothing but idleness leads to its end: no Pod in a non-terminal phase, no workload that wants one, or that something else may scale up
// again, and all that for IdleAfter, counted from the last activity or from when a reaper first saw it so, whichever is later: a Pod may have ended while no reaper looked.
// Then it takes Sightings consecutive passes to mark it, and another one to take it apart. Whatever is unclear keeps it.
func decideNamespace(f *facts, policy *v1alpha1.Reaper, now time.Time) verdict {
	n := f.namespace
	w := writer{n: n, now: now}
	if n.deleting {
		v := verdict{phase: Terminating, reason: "it is being deleted", stuck: now.Sub(n.deletedAt) > stuckAfter}
		if len(n.heldBy) > 0 {
			v.reason = "it is being deleted, and held by " + strings.Join(n.heldBy, "; ")
		}
		return v
	}
	active := w.activity(f.changedAt(now))
	phase, reason := f.condition(policy, active, now)
	scaled := phase == Idle && len(f.scaled()) > 0
	if scaled {
		phase, reason = Active, strings.Join(f.scaled(), ", ")+", which may scale it up again"
	}
	w.health(phase, reason)
	if why := f.protection(now); why != "" {
		w.clear(lifecycle.AnnotationReaping, lifecycle.AnnotationSightings, lifecycle.AnnotationIdleSince)
		if phase != Unhealthy {
			phase, reason = Protected, why
		}
		return w.verdict(phase, reason)
	}
	if phase != Idle {
		w.clear(lifecycle.AnnotationReaping, lifecycle.AnnotationSightings, lifecycle.AnnotationIdleSince)
		v := w.verdict(phase, reason)
		v.autoscaled = scaled
		return v
	}

	idle := idlenessOf(n, active, now)
	if !idle.noted {
		w.set(lifecycle.AnnotationIdleSince, now.UTC().Format(time.RFC3339))
	}
	since := idle.since
	if idle.ripeAt(policy).After(now) {
		w.clear(lifecycle.AnnotationReaping, lifecycle.AnnotationSightings)
		return w.verdict(Idle, fmt.Sprintf("nothing has run there since %s, which is less than %s ago",
			since.UTC().Format(time.RFC3339), policy.Namespaces.IdleAfter.Duration))
	}
	reason = "nothing has run there since " + since.UTC().Format(time.RFC3339) + ", and nothing wants to"
	if idle.marked {
		return w.verdict(Dismantled, reason)
	}
	seen := idle.sightings + 1
	if seen < int(policy.Sightings) {
		w.clear(lifecycle.AnnotationReaping) // there is none, or one that says nothing
		w.set(lifecycle.AnnotationSightings, strconv.Itoa(seen))
		return w.verdict(Ready, fmt.Sprintf("%s; seen so by %d of %d passes", reason, seen, policy.Sightings))
	}
	w.clear(lifecycle.AnnotationSightings)
	w.set(lifecycle.AnnotationReaping, now.UTC().Format(time.RFC3339))
	return w.verdict(Marked, reason)
}

// undone says whether somebody has taken the mark back, or has protected the namespace since it was marked, even if only for a while
// that is over: then idleness counts anew, so that there is time to use it. Admission holds to the same and would refuse to delete
// what was protected when it was marked.
func undone(n *namespace, markedAt time.Time, marked bool) bool {
	if marked {
		return n.protection(markedAt) != ""
	}
	_, has := n.annotations[lifecycle.AnnotationReaping]
	_, shown := shownPhase(n)
	return !has && shown == Marked
}

// changedAt is when a Pod last appeared, changed or ended, by what was seen and by what the Pods that are there say: the reaper may
// not have looked. Zero if there is nothing of either.
func (f *facts) changedAt(now time.Time) time.Time {
	at := f.podChanged
	for _, p := range f.pods {
		at = latest(at, p.changedAt)
	}
	if at.After(now) {
		return now
	}
	return at
}

// protection says what protects the namespace by itself, or "" if nothing does.
func (n *namespace) protection(now time.Time) string {
	return lifecycle.Protection(lifecycle.ProtectionMarks(n.labels, n.annotations), now)
}

// protection says what protects the namespace: a mark of its own, or of something in it, which would go with it.
func (f *facts) protection(now time.Time) string {
	if why := f.namespace.protection(now); why != "" {
		return why
	}
	var found []string
	look := func(kind string, o *object) {
		if why := lifecycle.Protection(o.protected, now); why != "" {
			found = append(found, kind+" "+o.name+": "+why)
		}
	}
	for _, p := range f.pods {
		look("Pod", &p.object)
	}
	for _, w := range f.workloads {
		look(w.kind, &w.object)
	}
	for _, c := range f.claims {
		look("PersistentVolumeClaim", &c.object)
	}
	for _, s := range f.services {
		look("Service", &s.object)
	}
	slices.Sort(found)
	return strings.Join(found, "; ")
}

// condition says whether something runs in the namespace, or should.
func (f *facts) condition(policy *v1alpha1.Reaper, active time.Time, now time.Time) (Phase, string) {
	patience := policy.Namespaces.UnhealthyAfter.Duration
	var live []*pod
	for _, p := range f.pods {
		if p.live {
			live = append(live, p)
		}
	}
	wants := map[string]bool{}
	for _, w := range f.workloads {
		wants[workloadKey(w)] = w.wants
	}
	var wanting []string
	for _, w := range f.workloads {
		// One whose owner wants a Pod goes without saying. An unfinished Job of a CronJob that is suspended does not.
		if w.wants && !wants[w.owner] {
			wanting = append(wanting, w.kind+" "+w.name)
		}
	}
	slices.Sort(wanting)
	switch {
	case len(live) == 0 && len(wanting) == 0:
		return Idle, ""
	case len(live) == 0:
		// A Job that waits for its time is no Pod that is missing.
		missing := slices.DeleteFunc(slices.Clone(wanting), func(w string) bool { return strings.HasPrefix(w, "CronJob ") })
		if len(missing) > 0 && now.Sub(active) > patience {
			return Unhealthy, strings.Join(missing, ", ") + " wants a Pod and has none"
		}
		return Active, strings.Join(wanting, ", ") + " may make Pods"
	}
	slices.SortFunc(live, func(a, b *pod) int { return strings.Compare(a.name, b.name) })
	_, was := f.namespace.annotations[lifecycle.AnnotationUnhealthy]
	for _, p := range live {
		switch {
		case p.deleting:
		case p.looping != "":
			return Unhealthy, fmt.Sprintf("container %s of Pod %s crashes again and again (CrashLoopBackOff)", p.looping, p.name)
		case !p.ready && now.Sub(p.readyAt) > patience:
			return Unhealthy, fmt.Sprintf("Pod %s has not been ready since %s", p.name, p.readyAt.UTC().Format(time.RFC3339))
		case was && (!p.ready || now.Sub(p.readyAt) < recovery):
			_, reason, _ := strings.Cut(f.namespace.annotations[lifecycle.AnnotationUnhealthy], " ")
			return Unhealthy, reason
		}
	}
	if len(live) == 1 {
		return Active, "Pod " + live[0].name + " is there"
	}
	return Active, fmt.Sprintf("%d Pods are there", len(live))
}

// writer collects what is to be written on a namespace.
type writer struct {
	n       *namespace
	now     time.Time
	changes map[string]*string
}

func (w *writer) verdict(phase Phase, reason string) verdict {
	shown := phase
	switch phase {
	case Ready:
		shown = Idle
	case Dismantled:
		shown = Marked
	}
	if _, now := shownPhase(w.n); now != shown {
		w.set(lifecycle.AnnotationPhase, w.now.UTC().Format(time.RFC3339)+" "+string(shown))
	}
	return verdict{phase: phase, reason: reason, annotations: w.changes}
}

// shownPhase reads AnnotationPhase.
func shownPhase(n *namespace) (since time.Time, phase Phase) {
	at, is, _ := strings.Cut(n.annotations[lifecycle.AnnotationPhase], " ")
	since, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return time.Time{}, ""
	}
	return since, Phase(is)
}

func (w *writer) put(key string, value *string) {
	if w.changes == nil {
		w.changes = map[string]*string{}
	}
	w.changes[key] = value
}

func (w *writer) set(key, value string) {
	if w.n.annotations[key] != value {
		w.put(key, &value)
	}
}

func (w *writer) clear(keys ...string) {
	for _, key := range keys {
		if _, has := w.n.annotations[key]; has {
			w.put(key, nil)
		}
	}
}

// activity writes what was seen of Pods, repairs what says nothing, and returns the last activity.
func (w *writer) activity(podChanged time.Time) time.Time {
	at, ok := lastActivity(w.n, w.now)
	switch {
	case !ok:
		at = w.now
		w.set(lifecycle.AnnotationLastPodActivity, at.UTC().Format(time.RFC3339))
	case podChanged.Sub(at) >= time.Second && w.now.Sub(at) >= activityInterval:
		at = podChanged
		w.set(lifecycle.AnnotationLastPodActivity, at.UTC().Format(time.RFC3339))
	case podChanged.After(at):
		at = podChanged
	}
	return at
}

// health writes what is wrong, and since when. The time stays as long as anything is.
func (w *writer) health(phase Phase, reason string) {
	if phase != Unhealthy {
		w.clear(lifecycle.AnnotationUnhealthy)
		return
	}
	since, before, _ := strings.Cut(w.n.annotations[lifecycle.AnnotationUnhealthy], " ")
	if before == reason {
		return
	}
	if _, err := time.Parse(time.RFC3339, since); err != nil {
		since = w.now.UTC().Format(time.RFC3339)
	}
	w.set(lifecycle.AnnotationUnhealthy, since+" "+reason)
}

// after returns the namespace as it is once the annotations have been written.
func (n *namespace) after(changes map[string]*string) *namespace {
	changed := *n
	changed.annotations = maps.Clone(n.annotations)
	if changed.annotations == nil {
		changed.annotations = map[string]string{}
	}
	for key, value := range changes {
		if value == nil {
			delete(changed.annotations, key)
		} else {
			changed.annotations[key] = *value
		}
	}
	return &changed
}
