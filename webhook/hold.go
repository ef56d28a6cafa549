package webhook

import (
	"context"
	"sync"
	"time"

	"github.com/dexorder/agent-lifecycle/policy"
)

const (
	// maxHold is how long a self-delete waits for the kubelet to report the exit: longer than that usually takes, and well
	// within the API server's patience.
	maxHold = 2 * time.Second

	// settleTime is kept back of a request's time for what follows the wait: facts, the breaker, the answer.
	settleTime = 500 * time.Millisecond

	// maxHeld is how many wait at a time. They leave the limiter's room meanwhile, so that agents that go never keep others
	// from being created; this bound is their own.
	maxHeld = 64
)

// holds are the self-deletes that wait.
type holds struct {
	mu      sync.Mutex
	stopped bool
	waiting map[*hold]struct{}
}

// hold is one wait.
type hold struct{ end context.CancelFunc }

// begin returns a context that ends when the wait has to. It is false if too many wait already, or none may any more.
func (h *holds) begin(ctx context.Context) (_ context.Context, end func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || len(h.waiting) >= maxHeld {
		return nil, nil, false
	}
	until := time.Now().Add(maxHold)
	if deadline, ok := ctx.Deadline(); ok && deadline.Add(-settleTime).Before(until) {
		until = deadline.Add(-settleTime)
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	held := &hold{cancel}
	if h.waiting == nil {
		h.waiting = map[*hold]struct{}{}
	}
	h.waiting[held] = struct{}{}
	return ctx, func() {
		cancel()
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting, held)
	}, true
}

// stop ends all waits.
func (h *holds) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for held := range h.waiting {
		held.end()
	}
}

// hold waits until the kubelet's report on the caller's Pod changes the verdict. The sidecar knows of the exit within
// milliseconds, the Pod's status within two seconds: waiting here costs one request, asking again and again would cost
// many. Where that is not possible, or nothing changes in time, the verdict stays: not yet. Dry runs wait as well, or they
// would be answered otherwise.
func (a *Admission) hold(ctx context.Context, p Policy, r *policy.Request, verdict policy.Verdict) (policy.Verdict, error) {
	waiting, end, ok := a.holds.begin(ctx)
	if !ok {
		return verdict, nil
	}
	defer end()
	if !leaveRoom(ctx) {
		return verdict, nil
	}
	a.Metrics.held.Inc()
	defer a.Metrics.held.Dec()
	start := time.Now()
	defer func() { a.Metrics.heldFor.Observe(time.Since(start).Seconds()) }()
	changed := false
	err := a.Callers.WatchCaller(waiting, r, func(facts *policy.Facts) bool {
		now := *r
		now.Facts = facts
		changed = p.Review(&now).Wait() != policy.WaitForExit
		return changed
	})
	switch {
	case changed:
		// The other facts are as old as the wait was long.
		return a.review(ctx, p, r)
	case err != nil && waiting.Err() == nil:
		return policy.Verdict{}, err
	}
	return verdict, nil
}
