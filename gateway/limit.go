package gateway

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Rate is so many in a second in the long run, and Burst at once.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Limits bound what users can ask of the gateway, and the gateway of the cluster.
type Limits struct {
	// Requests are those of one user, by user type; of an agent that is not there by DefaultUserType. A type that is missing
	// has no bound.
	Requests map[lifecycle.UserType]Rate

	// Wakes are the agents made for all users of a type together. A type that is missing has no bound.
	Wakes map[lifecycle.UserType]Rate

	// Held is how many requests may wait for agents at once, of one user type half of it; Streams how many streams of events may be
	// open.
	Held, Streams int

	// Body is the longest body that is delivered to an agent, in bytes.
	Body int64
}

// DefaultLimits returns Limits for a fleet of some thousand agents.
func DefaultLimits() Limits {
	return Limits{
		Requests: map[lifecycle.UserType]Rate{
			lifecycle.Anonymous: {10, 100}, lifecycle.Free: {20, 200}, lifecycle.Paid: {50, 500}, lifecycle.Enterprise: {100, 1000},
		},
		Wakes: map[lifecycle.UserType]Rate{
			lifecycle.Anonymous: {5, 20}, lifecycle.Free: {10, 40}, lifecycle.Paid: {20, 80}, lifecycle.Enterprise: {20, 80},
		},
		Held: 2000, Streams: 5000, Body: 64 << 20,
	}
}

// maxBuckets is how many users' buckets are remembered before the full ones are forgotten, which nobody can tell from new ones.
const maxBuckets = 20_000

type limiter struct {
	limits        Limits
	now           func() time.Time
	wakes         map[lifecycle.UserType]*rate.Limiter
	held, streams chan struct{}

	// heldOf are the places of each user type; those of agents that have gone, whose type is not known yet, are of none.
	heldOf map[lifecycle.UserType]chan struct{}

	mu      sync.Mutex
	buckets map[bucket]*rate.Limiter
}

type bucket struct {
	user     string
	userType lifecycle.UserType
}

func newLimiter(limits Limits, now func() time.Time) *limiter {
	l := &limiter{
		limits: limits, now: now, wakes: map[lifecycle.UserType]*rate.Limiter{}, buckets: map[bucket]*rate.Limiter{},
		held: make(chan struct{}, limits.Held), streams: make(chan struct{}, limits.Streams),
		heldOf: map[lifecycle.UserType]chan struct{}{},
	}
	for _, userType := range append(lifecycle.UserTypes(), "") {
		l.heldOf[userType] = make(chan struct{}, (limits.Held+1)/2)
	}
	for userType, r := range limits.Wakes {
		l.wakes[userType] = rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
	}
	return l
}

// request takes one of a user's requests. Where there is none left it returns after how long there is one again.
func (l *limiter) request(user string, userType lifecycle.UserType) (wait time.Duration, ok bool) {
	r, bounded := l.limits.Requests[userType]
	if !bounded {
		return 0, true
	}
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	key := bucket{user, userType}
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxBuckets {
			l.forget(now)
		}
		b = rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
		l.buckets[key] = b
	}
	if b.AllowN(now, 1) {
		return 0, true
	}
	return time.Duration((1 - b.TokensAt(now)) / r.PerSecond * float64(time.Second)), false
}

// forget drops full buckets, and all where none is: better generous than out of memory.
func (l *limiter) forget(now time.Time) {
	for key, b := range l.buckets {
		if b.TokensAt(now) >= float64(b.Burst()) {
			delete(l.buckets, key)
		}
	}
	if len(l.buckets) >= maxBuckets {
		clear(l.buckets)
	}
}

// wake waits until one more agent of a user type may be made, or returns at once where ctx would end before.
func (l *limiter) wake(ctx context.Context, userType lifecycle.UserType) error {
	b := l.wakes[userType]
	if b == nil {
		return nil
	}
	if err := b.Wait(ctx); err != nil {
		return fmt.Errorf("%w: many agents of user type %q are being made", errLimited, userType)
	}
	return nil
}

// hold takes a place for a request that waits, if there is one; release gives it back. No user type takes all the places from the others.
func (l *limiter) hold(userType lifecycle.UserType) (release func(), ok bool) {
	places, known := l.heldOf[userType]
	if !known {
		places = l.heldOf[""] // somebody else wrote the label
	}
	ofType, ok := take(places)
	if !ok {
		return nil, false
	}
	ofAll, ok := take(l.held)
	if !ok {
		ofType()
		return nil, false
	}
	return func() { ofAll(); ofType() }, true
}

// take takes a place, if there is one; release gives it back.
func take(places chan struct{}) (release func(), ok bool) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, true
	default:
		return nil, false
	}
}
