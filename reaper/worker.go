package reaper

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// worker does the reaper's work for as long as this replica leads, or for one pass.
type worker struct {
	Options
	client    kubernetes.Interface
	inventory *inventory
	mirror    *mirror

	// begun is when it began. once says that it makes one pass and no more.
	begun time.Time

	// released is when it last let go of what had been kept.
	released time.Time
	once     bool

	agents *agentQueue
	dismantler

	mu sync.Mutex
	// said remembers what was logged of each object, so that each decision is logged once.
	said map[string]string
	// lastKept remembers the reasons of each reaper's last pass.
	lastKept map[string]map[string]int
	// dirty are the namespaces whose Pods or workloads have changed since they were looked at.
	dirty map[string]bool
	// hurry says that an agent has ended for whose deletion nobody else will ask.
	hurry bool
	// prune says that a namespace may have gone whose template is no longer needed.
	prune bool
	kick  chan struct{}
	// capSince is since when a reaper's passes exceed the cap, one after another.
	capSince map[string]time.Time
	// due is when the leftovers of a namespace have to be looked at again, driftDue when it is to be compared with its template.
	due, driftDue map[string]time.Time
}

func newWorker(options Options, client, watching kubernetes.Interface) *worker {
	w := &worker{
		Options: options, client: client, begun: options.Now(), prune: true, said: map[string]string{}, lastKept: map[string]map[string]int{},
		dirty: map[string]bool{}, kick: make(chan struct{}, 1), due: map[string]time.Time{}, driftDue: map[string]time.Time{}, capSince: map[string]time.Time{},
	}
	w.inventory = newInventory(w.remembers, options.Now)
	w.inventory.notify = w.changed
	w.mirror = newMirror(watching, w.inventory, options.Now, options.Logger)
	w.agents = newAgentQueue(w)
	w.dismantler = newDismantler(w)
	return w
}

func (w *worker) remembers(namespace string) bool { return remembers(w.Policy.File(), namespace) }

func (w *worker) foreign(n *namespace, orgs map[string]bool) string {
	return foreignTo(w.Policy.File(), n, orgs, w.Namespace)
}

// settings are the policy's as they are now.
func (w *worker) settings() *v1alpha1.Reaper { return &w.Policy.File().Reaper }

// mode is what a reaper may do now.
func (w *worker) mode(of v1alpha1.ReaperMode) v1alpha1.ReaperMode {
	if of == v1alpha1.ReaperDelete && (w.settings().DryRun || w.DryRun) {
		return v1alpha1.ReaperDryRun
	}
	return of
}

// mayWrite says whether anything may be written that is more than what was seen: neither the command nor the policy is a dry run.
func (w *worker) mayWrite() bool { return !w.DryRun && !w.settings().DryRun }

// changed is told of every change in the cluster, with the inventory locked.
func (w *worker) changed(before, after record, first bool) {
	now := w.Now()
	for _, e := range transitions(before, after, w.inventory.deploymentUID, now) {
		if !first { // what was there already is told once all has been read
			w.Announcer.Announce(e)
		}
	}
	r := after
	if r == nil {
		r = before
	}
	w.agents.changed(r)
	if first {
		return
	}
	w.furnished(before, after, r)
	switch r := r.(type) {
	case *pod:
		w.soon(placeOf(r), r.ended != nil && !r.ended.sidecar)
		if after == nil {
			w.leftoversDue(r.namespace, now)
		}
	case *workload:
		w.soon(r.namespace, false)
		if after == nil && r.owner == "" {
			w.leftoversDue(r.namespace, now)
		}
	case *scaler:
		if was, _ := before.(*scaler); was == nil || after == nil || was.target != r.target { // it changes with every measurement
			w.soon(r.namespace, false)
		}
	case *namespace:
		w.soon(r.name, false)
		if after == nil {
			w.forgetNamespace(r.name)
			if strings.HasPrefix(r.name, lifecycle.RoleNamespacePrefix) {
				w.pruneSoon()
			}
		}
	}
}

// furnished has a namespace compared with its template when something that is not made from something else has come or gone, or its
// labels have changed.
func (w *worker) furnished(before, after, r record) {
	switch r := r.(type) {
	case *namespace:
		if was, _ := before.(*namespace); was != nil && after != nil && !maps.Equal(was.labels, r.labels) {
			w.driftDueAt(r.name, w.Now())
		}
		return
	case *pod:
		return
	case *workload:
		if r.owner != "" {
			return
		}
	}
	if before == nil || after == nil {
		w.driftDueAt(r.id().namespace, w.Now().Add(driftSettle))
	}
}

// soon has a namespace looked at before the next pass, and the agents, too, if there is hurry.
func (w *worker) soon(namespace string, hurry bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dirty[namespace] = true
	w.hurry = w.hurry || hurry
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// takeDirty returns the namespaces to look at, once.
func (w *worker) takeDirty() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	names := make([]string, 0, len(w.dirty))
	for name := range w.dirty {
		names = append(names, name)
	}
	clear(w.dirty)
	return names
}

// takeHurry says whether the agents are to be looked at, once.
func (w *worker) takeHurry() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	hurry := w.hurry
	w.hurry = false
	return hurry
}

// say logs what was decided on an object, once for each change, and adds it to the report. Of what is simply so, quiet, only a change
// is worth a line.
func (w *worker) say(ctx context.Context, result *Result, d Decision, quiet bool) {
	if !quiet {
		result.Decisions = append(result.Decisions, d)
	}
	key := result.key(&d)
	said := d.Verdict + ": " + d.Reason
	w.mu.Lock()
	before, known := w.said[key]
	w.said[key] = said
	w.mu.Unlock()
	verdict, _, _ := strings.Cut(before, ": ")
	if before == said || quiet && (!known || verdict == d.Verdict) {
		return
	}
	w.Logger.InfoContext(ctx, "Decided", "kind", d.Kind, "namespace", d.Namespace, "name", d.Name, "verdict", d.Verdict, "reason", d.Reason)
}

// key is by what is remembered what a reaper said of an object. Two may have something to say of the same.
func (r *Result) key(d *Decision) string {
	return r.Reaper + "/" + d.Kind + "/" + d.Namespace + "/" + d.Name
}

// forget drops what was said of an object that is gone.
func (w *worker) forget(result *Result, d *Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.said, result.key(d))
}

// forgetNamespace drops what was remembered of a namespace that is gone.
func (w *worker) forgetNamespace(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.due, name)
	delete(w.driftDue, name)
	for key := range w.said {
		if strings.HasSuffix(key, "/Namespace//"+name) || strings.Contains(key, "/"+name+"/") {
			delete(w.said, key)
		}
	}
}

// waiting lists the namespaces of ours whose time has come, those first that have waited longest: however few one pass looks at, each
// has its turn. One that has no time yet is due at first.
func (w *worker) waiting(policy *v1alpha1.Reaper, due map[string]time.Time, first func(*namespace) time.Time) []*namespace {
	ours, now := orgs(policy), w.Now()
	var all []*namespace
	since := map[string]time.Time{}
	for _, name := range w.inventory.names() {
		f := w.inventory.facts(name)
		if f == nil || f.namespace.deleting || w.foreign(f.namespace, ours) != "" {
			continue
		}
		w.mu.Lock()
		at, known := due[name]
		w.mu.Unlock()
		if !known {
			at = first(f.namespace)
		}
		if !at.After(now) {
			all, since[name] = append(all, f.namespace), at
		}
	}
	slices.SortStableFunc(all, func(a, b *namespace) int { return since[a.name].Compare(since[b.name]) })
	return all
}

// annotate writes annotations on a Namespace, if it is still the very one, as it was when they were decided on.
func (w *worker) annotate(ctx context.Context, n *namespace, changes map[string]*string) (*namespace, error) {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": n.uid, "resourceVersion": n.resourceVersion, "annotations": changes,
	}})
	if err != nil {
		return nil, err
	}
	written, err := w.client.CoreV1().Namespaces().Patch(ctx, n.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return nil, err
	}
	return namespaceOf(written), nil
}

// preconditions let a deletion hit the very object that was decided on, as it was then.
func preconditions(o *object) metav1.DeleteOptions {
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.uid, ResourceVersion: &o.resourceVersion}}
}

// liveNamespace reads a Namespace from the API server.
func (w *worker) liveNamespace(ctx context.Context, name string) (*namespace, *corev1.Namespace, error) {
	ns, err := w.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, nil, err
	}
	return namespaceOf(ns), ns, nil
}
