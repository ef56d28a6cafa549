package webhook

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

const (
	// shareBytes is how much body one share of the limiter stands for, shareDecoded how much decoded object.
	shareBytes   = 128 << 10
	shareDecoded = 512 << 10
)

// limiter bounds how many requests are answered at once, by what they take: a request takes a share for every started 128
// KiB of its body, or for every started 512 KiB that its objects take in memory if that is more. So one number bounds both
// memory and concurrency.
//
// Requests of one share have all the shares, and larger ones have half as many beside them: a large one that waits for its
// shares keeps no small one waiting. With 128 shares that makes 96 MiB of decoded objects at most.
type limiter struct {
	small, large queue

	// maxWait is how long a request waits for its shares.
	maxWait time.Duration
}

// queue is the shares of one class, and the requests that wait for them.
type queue struct {
	shares     *semaphore.Weighted
	total      int64
	waiting    atomic.Int64
	maxWaiting int64
}

var errOverload = errors.New("too many requests at once")

func newLimiter(shares int) *limiter {
	l := &limiter{maxWait: time.Second}
	l.small.total, l.large.total = int64(shares), int64(shares+1)/2
	for _, q := range []*queue{&l.small, &l.large} {
		q.shares, q.maxWaiting = semaphore.NewWeighted(q.total), q.total*4
	}
	return l
}

// shares returns how many shares a request takes, of a body of so many bytes whose objects take so many decoded ones.
func shares(bytes, decoded int64) int64 { return max(bytes/shareBytes, decoded/shareDecoded) + 1 }

// acquire takes n shares. The error is errOverload, or that of ctx.
func (l *limiter) acquire(ctx context.Context, n int64) (release func(), err error) {
	q := &l.small
	if n > 1 {
		q = &l.large
		n = min(n, q.total) // A request larger than all the room there is gets all of it.
	}
	if q.shares.TryAcquire(n) {
		return func() { q.shares.Release(n) }, nil
	}
	if q.waiting.Add(1) > q.maxWaiting {
		q.waiting.Add(-1)
		return nil, errOverload
	}
	defer q.waiting.Add(-1)
	waitCtx, cancel := context.WithTimeoutCause(ctx, l.maxWait, errOverload)
	defer cancel()
	if q.shares.Acquire(waitCtx, n) != nil {
		return nil, context.Cause(waitCtx)
	}
	return func() { q.shares.Release(n) }, nil
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

// leaveRoom gives back the room of the decoded request that ctx belongs to, which is about to wait for something else than the
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
