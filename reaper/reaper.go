package reaper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// LeaseName is the Lease that the replica holds which does the work.
const LeaseName = "lifecycle-reaper"

// How long a replica holds the Lease that has gone, and how often it is renewed: another one takes over within 20 s.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// RequestTimeout bounds every request but watches: one that hangs must not hold up all that comes after it.
const RequestTimeout = time.Minute

// settleBefore is how long changes are collected before namespaces are looked at again.
const settleBefore = time.Second

// Breaker is asked before anything is deleted, and before an agent is started again. Package breaker has it.
type Breaker interface {
	// Closed returns nil if it is closed.
	Closed(ctx context.Context) error

	// Take returns nil if one more agent may go now. Key is the UID of its Deployment: asked for again, it is one.
	Take(ctx context.Context, key string) error
}

// Options of a Reaper. All are required, unless they say otherwise.
type Options struct {
	Config *rest.Config

	// Namespace holds the Lease, Identity is this replica's name in it.
	Namespace, Identity string

	Policy    PolicySource
	Breaker   Breaker
	Announcer Announcer
	Archiver  Archiver

	// DryRun writes nothing at all, whatever the policy says. Optional.
	DryRun bool

	// Now is the clock.
	Now func() time.Time

	Metrics *Metrics
	Logger  *slog.Logger
}

// Reaper does the work while it holds the Lease.
type Reaper struct {
	options Options
	client  kubernetes.Interface
	// watching is for watches, which last.
	watching kubernetes.Interface

	mu      sync.Mutex
	leading *worker
}

// New returns a Reaper.
func New(options Options) (*Reaper, error) {
	config := rest.CopyConfig(options.Config)
	// Tens of thousands of objects are read at the start; this takes a third of the time that JSON does.
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	watching, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	config.Timeout = RequestTimeout
	GuardDeletes(config, options.Breaker)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("reaper: %w", err)
	}
	return &Reaper{options: options, client: client, watching: watching}, nil
}

// Run waits for the Lease, works while it holds it, and waits again once it has lost it, until ctx ends.
func (r *Reaper) Run(ctx context.Context) error {
	if r.options.DryRun {
		// One that only says what it would do must not keep from the work the one that does it.
		r.lead(ctx)
		return nil
	}
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Namespace: r.options.Namespace, Name: LeaseName},
		Client:     r.client.CoordinationV1(),
		LockConfig: resourcelock.ResourceLockConfig{Identity: r.options.Identity},
	}
	for ctx.Err() == nil {
		// The work of before may not have ended when the Lease is won again.
		var work sync.WaitGroup
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
			// Not before the work has ended, which takes a moment.
			ReleaseOnCancel: false, Name: LeaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { work.Go(func() { r.lead(ctx) }) },
				OnStoppedLeading: func() {},
			},
		})
		if err != nil {
			return fmt.Errorf("reaper: %w", err)
		}
		elector.Run(ctx)
		work.Wait()
		release(ctx, lock)
	}
	return nil
}

// releaseTimeout bounds the last write of a replica that stops.
const releaseTimeout = 5 * time.Second

// release gives the Lease back, if this replica has it still, once its work has ended: the next one need not wait. If that fails, the
// Lease runs out.
func release(ctx context.Context, lock *resourcelock.LeaseLock) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	held, _, err := lock.Get(ctx)
	if err != nil || held.HolderIdentity != lock.Identity() {
		return
	}
	now := metav1.Now()
	_ = lock.Update(ctx, resourcelock.LeaderElectionRecord{
		LeaderTransitions: held.LeaderTransitions, LeaseDurationSeconds: 1, RenewTime: now, AcquireTime: now,
	})
}

// Once makes one pass over the cluster, looks after every agent, and takes apart what earlier passes have marked, without asking for
// the Lease: whatever is deleted is decided on live reads, and with preconditions. A list that could not be read is an error.
func (r *Reaper) Once(ctx context.Context) (*Report, error) {
	w := newWorker(r.options, r.client, r.watching)
	w.once = true
	defer w.agents.queue.ShutDown()
	defer w.dismantler.queue.ShutDown()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	all.Go(func() { w.mirror.run(watching) })
	if err := w.mirror.filled(ctx); err != nil {
		return nil, err
	}
	report := w.pass(ctx)
	if w.DryRun {
		return report, context.Cause(ctx)
	}
	agents := report.of("agents")
	agents.fail(w.agents.drain(ctx))
	namespaces := report.of("namespaces")
	namespaces.fail(w.dismantleNow(ctx, namespaces))
	namespaces.Reaped = w.takeReaped()
	return report, context.Cause(ctx)
}

// lead works until ctx ends, which is when the Lease is lost. A fault of the reaper must not stop admission, which runs in the
// same process: it is logged, and tried again.
func (r *Reaper) lead(ctx context.Context) {
	r.options.Metrics.leading.Set(1)
	defer r.options.Metrics.resign()
	r.options.Logger.InfoContext(ctx, "Leading: looking after agents")
	for ctx.Err() == nil {
		if err := r.work(ctx); err != nil && ctx.Err() == nil {
			r.options.Logger.ErrorContext(ctx, "The reaper failed; trying again", "error", err, "pause", retryPeriod.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPeriod):
		}
	}
}

// work runs the parts until ctx ends, or the policy covers other namespaces, of which nothing is remembered.
func (r *Reaper) work(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := newWorker(r.options, r.client, r.watching)
	defer w.agents.queue.ShutDown()
	defer w.dismantler.queue.ShutDown()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() { w.mirror.run(ctx) })
	if err := w.awaitFilled(ctx); err != nil {
		return err
	}
	r.options.Logger.InfoContext(ctx, "What the cluster holds has been read", "took", r.options.Now().Sub(w.begun).Round(time.Millisecond).String())
	r.setLeading(w)
	defer r.setLeading(nil)
	parallelism := int(w.settings().Parallelism)
	if !w.DryRun { // all that it does is writing
		all.Go(func() { w.agents.work(ctx, parallelism) })
	}
	all.Go(func() { w.dismantler.work(ctx, parallelism) })
	for _, e := range w.states(w.begun.Add(-announcedFor)) {
		w.Announcer.Announce(e)
	}
	return w.passes(ctx)
}

// awaitFilled waits until everything has been read once. As long as that takes, no pass is made, which counts as failed ones.
func (w *worker) awaitFilled(ctx context.Context) error {
	for {
		patience, cancel := context.WithTimeout(ctx, max(w.settings().Interval.Duration, time.Minute))
		err := w.mirror.filled(patience)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		w.Logger.WarnContext(ctx, "What the cluster holds has not been read yet; nothing is reaped meanwhile", "error", err)
		for _, r := range w.reapers() {
			w.Metrics.passes.WithLabelValues(r.name, "failed").Inc()
		}
	}
}

func (r *Reaper) setLeading(w *worker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leading = w
}

// States returns what every namespace and agent is at, as events, for those who have missed some. It returns nothing in a replica
// that does not lead.
func (r *Reaper) States() []Event {
	r.mu.Lock()
	w := r.leading
	r.mu.Unlock()
	if w == nil {
		return nil
	}
	return w.states(time.Time{})
}

// releaseInterval is how often it is looked whether something has been kept for long enough: that is a matter of days.
const releaseInterval = 10 * time.Minute

// errCoverage ends the work: the policy covers other namespaces.
var errCoverage = errors.New("the policy covers other namespaces")

// tick is how often it is looked whether a pass is due: the policy may have changed how long it is between two.
const tick = time.Second

// passes makes a pass at once and then at every interval, and looks at what has changed in between.
func (w *worker) passes(ctx context.Context) error {
	coverage := covered(w.Policy.File())
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	w.pass(ctx)
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if !reflect.DeepEqual(coverage, covered(w.Policy.File())) {
				return errCoverage
			}
			if time.Since(last) >= w.settings().Interval.Duration-tick/2 {
				last = time.Now()
				w.pass(ctx)
			}
		case <-w.kick:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settleBefore):
			}
			if w.mirror.broken() == nil {
				w.lookAgain(ctx, w.takeDirty())
			}
			if w.takeHurry() {
				w.run(ctx, reaper{"agents", w.passAgents})
			}
		}
	}
}

// release lets go of what has been kept for long enough, unless nothing may be deleted.
func (w *worker) release(ctx context.Context) error {
	if err := w.closed(ctx); err != nil {
		return err
	}
	return w.Archiver.Release(ctx)
}

func covered(policy *v1alpha1.LifecyclePolicy) []v1alpha1.Namespaces {
	all := make([]v1alpha1.Namespaces, 0, len(policy.Profiles))
	for i := range policy.Profiles {
		all = append(all, policy.Profiles[i].Namespaces)
	}
	return all
}

// reaper is one kind of reaping.
type reaper struct {
	name string
	pass func(context.Context) Result
}

// reapers lists all, in the order of a pass.
func (w *worker) reapers() []reaper {
	return []reaper{
		{"namespaces", w.passNamespaces},
		{"agents", w.passAgents},
		{"claims", w.passClaims},
		{"leftovers", w.passLeftovers},
		{"drift", w.passDrift},
	}
}

// pass runs every reaper once.
func (w *worker) pass(ctx context.Context) *Report {
	w.Metrics.interval.Set(w.settings().Interval.Seconds())
	report := &Report{}
	for _, r := range w.reapers() {
		report.Reapers = append(report.Reapers, w.run(ctx, r))
	}
	if now := w.Now(); w.mayWrite() && now.Sub(w.released) >= releaseInterval {
		w.released = now
		if err := w.release(ctx); err != nil && ctx.Err() == nil && !isOpen(err) {
			w.Logger.WarnContext(ctx, "What has been kept for long enough could not be let go; that is tried again later", "error", err)
		}
	}
	if err := w.pruneTemplates(ctx); err != nil && ctx.Err() == nil && !isOpen(err) {
		w.Logger.WarnContext(ctx, "Templates that no namespace needs could not be deleted; the next pass tries again", "error", err)
	}
	return report
}

// run runs one reaper. What it would decide by what may be old it does not decide at all: that is a failed pass.
func (w *worker) run(ctx context.Context, r reaper) Result {
	began := time.Now()
	result := Result{Reaper: r.name}
	if err := w.mirror.broken(); err != nil {
		result.Error = err.Error()
		if r.name == "namespaces" {
			w.approve(nil)
		}
	} else {
		result = r.pass(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return result
	case result.Mode == string(v1alpha1.ReaperOff):
		w.Metrics.off(r.name)
		return result
	}
	w.mu.Lock()
	before := w.lastKept[r.name]
	w.lastKept[r.name] = result.Kept
	if !result.CapExceeded {
		delete(w.capSince, r.name)
	}
	w.mu.Unlock()
	w.Metrics.passed(&result, before, time.Since(began), w.Now())
	if result.Error != "" {
		w.Logger.WarnContext(ctx, "A pass failed", "reaper", r.name, "error", result.Error)
	}
	return result
}
