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

	// Listened is to how many agents the gateway listens at once, at some 25 KiB each. Of others it knows what the kubelet says.
	Listened int

	// Connections is how many requests of one user may be under way at once, streams and upgraded connections included, by user type
	// as Requests; Connected is that of all users together, of one user type half of it. A type that is missing has no bound
	// for one user.
	Connections map[lifecycle.UserType]int
	Connected   int

	// Body is the longest body that is delivered to an agent, in bytes.
	Body int64

	// HeaderTimeout is how long an agent may take to begin its answer to a user's request. It is there for requests that nobody waits for
	// any more: the user's patience and Connections end the others. 0 is no bound.
	HeaderTimeout time.Duration
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
		Connections: map[lifecycle.UserType]int{
			lifecycle.Anonymous: 50, lifecycle.Free: 100, lifecycle.Paid: 200, lifecycle.Enterprise: 500,
		},
		Held: 2000, Streams: 5000, Connected: 20_000, Listened: 12_000, Body: 64 << 20, HeaderTimeout: time.Hour,
	}
}

// maxBuckets is how many users' buckets are remembered before the full ones are forgotten, which nobody can tell from new ones.
const maxBuckets = 20_000

type limiter struct {
	limits  Limits
	now     func() time.Time
	wakes   map[lifecycle.UserType]*rate.Limiter
	streams chan struct{}

	// held are the places of requests that wait for their agents, connected those of all that are under way.
	held, connected *places

	mu      sync.Mutex
	buckets map[bucket]*rate.Limiter

	// connections counts what is under way, by user; who has nothing is not in it.
	connections map[string]int
}

// places are shared by all user types, of which none takes more than half.
type places struct {
	all chan struct{}

	// of are the places of each user type; agents that have gone, whose type is not known yet, use "".
	of map[lifecycle.UserType]chan struct{}
}

func newPlaces(n int) *places {
	p := &places{all: make(chan struct{}, n), of: map[lifecycle.UserType]chan struct{}{}}
	for _, userType := range append(lifecycle.UserTypes(), "") {
		p.of[userType] = make(chan struct{}, (n+1)/2)
	}
	return p
}

// take takes a place, if there is one; release gives it back.
func (p *places) take(userType lifecycle.UserType) (release func(), ok bool) {
	places, known := p.of[userType]
	if !known {
		places = p.of[""] // somebody else wrote the label
	}
	ofType, ok := take(places)
	if !ok {
		return nil, false
	}
	ofAll, ok := take(p.all)
	if !ok {
		ofType()
		return nil, false
	}
	return func() { ofAll(); ofType() }, true
}

type bucket struct {
	user     string
	userType lifecycle.UserType
}

func newLimiter(limits Limits, now func() time.Time) *limiter {
	l := &limiter{
		limits: limits, now: now, wakes: map[lifecycle.UserType]*rate.Limiter{}, buckets: map[bucket]*rate.Limiter{},
		held: newPlaces(limits.Held), connected: newPlaces(limits.Connected), streams: make(chan struct{}, limits.Streams),
		connections: map[string]int{},
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

// connect takes one of a user's connections, if there is one left; release gives it back. The error is errLimited and says which limit.
func (l *limiter) connect(user string, userType lifecycle.UserType) (release func(), limit string, err error) {
	ofAll, ok := l.connected.take(userType)
	if !ok {
		return nil, limitedConnected, fmt.Errorf("%w: %d connections are open", errLimited, len(l.connected.all))
	}
	most, bounded := l.limits.Connections[userType]
	l.mu.Lock()
	defer l.mu.Unlock()
	if open := l.connections[user]; bounded && open >= most {
		ofAll()
		return nil, limitedConnections, fmt.Errorf("%w: this user, of user type %s, has %d connections open; accepted are up to %d",
			errLimited, userType, open, most)
	}
	l.connections[user]++
	return func() {
		ofAll()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.connections[user]--
		if l.connections[user] == 0 {
			delete(l.connections, user)
		}
	}, "", nil
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
