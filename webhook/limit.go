package webhook

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// shareBytes is how much body one share of the limiter stands for.
const shareBytes = 128 << 10

// limiter bounds how many requests are answered at once, by their size: a request takes a share for every started 128
// KiB of its body, so that one number bounds both memory and concurrency. Those without room wait, not too many of
// them and not for long.
type limiter struct {
	shares  *semaphore.Weighted
	total   int64
	waiting atomic.Int64
	// maxWaiting bounds how many requests wait, maxWait for how long.
	maxWaiting int64
	maxWait    time.Duration
}

var errOverload = errors.New("too many requests at once")

func newLimiter(shares int) *limiter {
	return &limiter{
		shares: semaphore.NewWeighted(int64(shares)), total: int64(shares),
		maxWaiting: int64(shares) * 4, maxWait: time.Second,
	}
}

// acquire takes room for a body of that many bytes. The error is errOverload, or that of ctx.
func (l *limiter) acquire(ctx context.Context, bytes int64) (release func(), err error) {
	n := min(bytes/shareBytes+1, l.total) // a body larger than all the room there is gets all of it
	if l.shares.TryAcquire(n) {
		return func() { l.shares.Release(n) }, nil
	}
	if l.waiting.Add(1) > l.maxWaiting {
		l.waiting.Add(-1)
		return nil, errOverload
	}
	defer l.waiting.Add(-1)
	waitCtx, cancel := context.WithTimeoutCause(ctx, l.maxWait, errOverload)
	defer cancel()
	if l.shares.Acquire(waitCtx, n) != nil {
		return nil, context.Cause(waitCtx)
	}
	return func() { l.shares.Release(n) }, nil
}
