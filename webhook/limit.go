package webhook

import (
	"context"
	"errors"
	"sync"
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

// room is what a request has taken of a limiter.
type room struct {
	release func()
	left    sync.Once

	// small says that the request took no more than one share.
	small bool
}

// leave gives the room back, once.
func (r *room) leave() { r.left.Do(r.release) }

type roomKey struct{}

func withRoom(ctx context.Context, r *room) context.Context {
	return context.WithValue(ctx, roomKey{}, r)
}

// leaveRoom gives back the room of the request that ctx belongs to, which is about to wait for something else than the
// processor. It is false, and nothing is given back, if the request is too large to be kept outside the limiter's bounds.
func leaveRoom(ctx context.Context) bool {
	r, ok := ctx.Value(roomKey{}).(*room)
	switch {
	case !ok:
		return true // It took none.
	case !r.small:
		return false
	}
	r.leave()
	return true
}
