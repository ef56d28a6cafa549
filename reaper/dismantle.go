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
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Archiver keeps the objects and volumes of a namespace that goes. Package archive has it.
type Archiver interface {
	// Save returns nil when everything is safely kept for that long. It may be called again.
	Save(ctx context.Context, namespace *corev1.Namespace, keep time.Duration, secrets bool) error

	// Release lets go of what has been kept for long enough.
	Release(ctx context.Context) error
}

// Pauses between two looks at a namespace that is being taken apart. They double with every look.
const (
	shortestRetry = 500 * time.Millisecond
	longestRetry  = time.Minute
)

// manyRetries is from when on a namespace that does not get further is reported: after some minutes.
const manyRetries = 10

// dismantler takes namespaces apart: workloads first, then claims, for whose end it waits, then the namespace itself. What has been
// done is seen in the cluster alone, so that it goes on wherever another one was killed.
type dismantler struct {
	*worker
	queue workqueue.TypedRateLimitingInterface[string]

	approval sync.Mutex
	approved map[string]bool
	reaped   int
	// ungranted are the namespaces of which it was said that they lack a RoleBinding.
	ungranted map[string]bool
	// saved holds for each namespace that this process has seen kept the markKey by which it was.
	saved map[string]string
}

func newDismantler(w *worker) dismantler {
	return dismantler{worker: w, ungranted: map[string]bool{}, saved: map[string]string{}, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](shortestRetry, longestRetry))}
}

// approve says which namespaces may be taken apart until the next pass.
func (d *dismantler) approve(names map[string]bool) {
	d.approval.Lock()
	d.approved = names
	d.approval.Unlock()
	for name := range names {
		d.queue.Add(name)
	}
}

func (d *dismantler) isApproved(name string) bool {
	d.approval.Lock()
	defer d.approval.Unlock()
	return d.approved[name]
}

// takeReaped returns how many namespaces have gone since it was last asked.
func (d *dismantler) takeReaped() int {
	d.approval.Lock()
	defer d.approval.Unlock()
	n := d.reaped
	d.reaped = 0
	return n
}

// work takes namespaces apart until ctx ends, so many at a time.
func (d *dismantler) work(ctx context.Context, parallelism int) {
	stop := context.AfterFunc(ctx, d.queue.ShutDown)
	defer stop()
	var all sync.WaitGroup
	for range parallelism {
		all.Go(func() {
			for d.next(ctx) {
			}
		})
	}
	all.Wait()
}

func (d *dismantler) next(ctx context.Context) bool {
	name, shutdown := d.queue.Get()
	if shutdown {
		return false
	}
	defer d.queue.Done(name)
	if !d.isApproved(name) {
		d.queue.Forget(name)
		return true
	}
	again, err := d.step(ctx, name)
	switch {
	case errors.Is(err, errUngranted):
		d.sayUngranted(ctx, name)
		d.queue.Forget(name)
	case heldBy(err) != nil:
		d.Logger.InfoContext(ctx, "A namespace waits for the circuit breaker", "namespace", name, "error", heldBy(err))
		d.queue.AddRateLimited(name)
	case err != nil && ctx.Err() == nil:
		d.Metrics.failures.Inc()
		d.Logger.WarnContext(ctx, "A namespace could not be taken apart; trying again", "namespace", name, "error", err)
		d.queue.AddRateLimited(name)
	case again:
		if d.queue.NumRequeues(name) == manyRetries {
			d.Logger.WarnContext(ctx, "A namespace that is reaped does not get further", "namespace", name, "waitsFor", d.held(ctx, name))
		}
		d.queue.AddRateLimited(name)
	default:
		d.queue.Forget(name)
	}
	return true
}

// dismantleNow takes apart what is approved, so many at a time, and returns when all is done, does not get further, or ctx ends. What
// could not be done is an error, and what has to wait is said in the result: nobody else looks after a single pass.
func (d *dismantler) dismantleNow(ctx context.Context, result *Result) error {
	d.approval.Lock()
	names := slices.Sorted(maps.Keys(d.approved))
	d.approval.Unlock()
	var group errgroup.Group
	group.SetLimit(int(d.settings().Parallelism))
	var mu sync.Mutex
	var failed []error
	for _, name := range names {
		group.Go(func() error {
			waits, err := d.stepAll(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case isOpen(err):
				d.say(ctx, result, Decision{Kind: "Namespace", Name: name, Verdict: string(Dismantled), Reason: "it waits: " + heldBy(err).Error()}, false)
			case err != nil:
				d.Metrics.failures.Inc()
				d.Logger.WarnContext(ctx, "A namespace could not be taken apart; the next pass tries again", "namespace", name, "error", err)
				failed = append(failed, fmt.Errorf("namespace %s: %w", name, err))
			case waits != "":
				d.say(ctx, result, Decision{Kind: "Namespace", Name: name, Verdict: string(Dismantled), Reason: "it waits for " + waits}, false)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failed...)
}

// stepAll takes steps until there are none left, and returns what it still waits for, if so many did not do.
func (d *dismantler) stepAll(ctx context.Context, name string) (waits string, err error) {
	pause := wait.Backoff{Duration: shortestRetry, Factor: 2, Steps: manyRetries, Cap: longestRetry}
	for {
		again, err := d.step(ctx, name)
		switch {
		case err != nil:
			return "", err
		case !again:
			return "", nil
		case pause.Steps == 0:
			return d.held(ctx, name), nil
		}
		select {
		case <-ctx.Done():
			return "", nil
		case <-time.After(pause.Step()):
		}
	}
}

// step does what is next, and says whether there is more to do.
func (d *dismantler) step(ctx context.Context, name string) (again bool, err error) {
	if d.mode(d.settings().Namespaces.Mode) != v1alpha1.ReaperDelete {
		return false, nil // the policy has changed since the pass
	}
	if d.isSaved(name) && d.leaving(name) {
		return true, nil
	}
	n, full, err := d.liveNamespace(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case n.deleting:
		return false, nil
	}
	if err := d.granted(ctx, n); err != nil {
		return false, err
	}
	if err := d.closed(ctx); err != nil { // before anything is kept of what stays
		return false, err
	}
	dead, err := d.confirm(ctx, n)
	if err != nil || dead == nil {
		return false, err
	}
	if marked, has := instant(n, lifecycle.AnnotationReaping, d.Now()); has {
		d.Announcer.Announce(namespaceEvent(NamespaceReaping, n, marked, "what is in it is being deleted"))
	}
	if err := d.save(ctx, n, full); err != nil {
		return false, err
	}
	if left, err := d.deleteWorkloads(ctx, n, dead.workloads); err != nil || left > 0 {
		return true, err
	}
	if err := d.deletePods(ctx, n, dead.pods); err != nil {
		return true, err
	}
	if left, err := d.deleteClaims(ctx, n, dead.claims); err != nil || left > 0 {
		return true, err
	}
	// Whatever has been written to the namespace since the first look, such as do-not-reap, makes this fail.
	err = d.client.CoreV1().Namespaces().Delete(ctx, n.name, preconditions(&n.object))
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case apierrors.IsConflict(err):
		return true, nil
	case err != nil:
		return false, err
	}
	d.approval.Lock()
	d.reaped++
	delete(d.saved, n.name)
	d.approval.Unlock()
	d.Metrics.reaped.WithLabelValues("namespaces").Inc()
	since := n.annotations[lifecycle.AnnotationIdleSince]
	d.Logger.InfoContext(ctx, "Reaped a namespace", "namespace", n.name, "role", n.labels[lifecycle.LabelAgentRole],
		"org", n.labels[lifecycle.LabelOrg], "idleSince", since)
	d.Announcer.Announce(namespaceEvent(NamespaceReaped, n, d.Now(), "nothing had run there since "+since))
	return false, nil
}
