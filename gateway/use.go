package gateway

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// tellEvery is how often the lifecycle manager of an agent in use is told so at most. Policies accept no idle timeout
	// below one minute.
	tellEvery = 15 * time.Second

	// closeShare is the part of tellEvery within which a use and a telling count as one moment, so that a request of some
	// milliseconds is told once and not twice.
	closeShare = 15
)

// uses tells lifecycle managers that their agents are used through this gateway.
//
// An agent is used as long as a request that has reached it is unanswered, and whenever bytes pass between a client and
// the agent, in either direction: on a request's body, an answer's body, or an upgraded connection. A connection that
// stands without a byte is no use. An agent is told when a use begins, each tellEvery while it lasts, and once more when
// it has ended.
//
// The cost is one clock reading for each read and write of a connection, and one timer for each agent in use. Gateways
// share nothing: each tells of the connections that it carries.
type uses struct {
	every time.Duration
	now   func() time.Time
	begun time.Time

	// tell makes one call to a lifecycle manager, and returns when it has ended.
	tell func(pod *corev1.Pod)

	// telling counts the calls that are under way.
	telling atomic.Int64

	mu sync.Mutex
	of map[types.UID]*use // by Pod
}

func newUses(now func() time.Time, tell func(*corev1.Pod)) *uses {
	return &uses{every: tellEvery, now: now, begun: now(), tell: tell, of: map[types.UID]*use{}}
}

// clock is the time since the uses began. It does not jump when the machine's clock is set.
func (s *uses) clock() time.Duration { return s.now().Sub(s.begun) }

// use is that of one Pod. All times are those of uses.clock.
type use struct {
	uses *uses
	pod  *corev1.Pod

	// moved is when bytes passed last, told when the lifecycle manager was told last.
	moved, told atomic.Int64

	// unanswered counts the requests that the agent has got whole and has not begun to answer.
	unanswered atomic.Int64

	// The rest is guarded by uses.mu: the requests under way, when the end of a use was told last, and what looks again.
	requests int
	endTold  time.Duration
	timer    *time.Timer
}

// begin notes a request that is about to be sent to an agent. end of the result must be called when it is over.
func (s *uses) begin(pod *corev1.Pod) *exchange {
	s.mu.Lock()
	u := s.of[pod.UID]
	if u == nil {
		u = &use{uses: s, pod: pod, endTold: s.clock() - s.every}
		u.told.Store(int64(s.clock() - s.every))
		u.timer = time.AfterFunc(s.every, u.tick)
		s.of[pod.UID] = u
	}
	u.requests++
	s.mu.Unlock()
	u.move()
	return &exchange{use: u}
}

// move notes that bytes pass now, and tells so if that has not been done for a while.
func (u *use) move() {
	now := u.uses.clock()
	u.moved.Store(int64(now))
	if told := u.told.Load(); now-time.Duration(told) >= u.uses.every {
		u.send(told, now)
	}
}

// send tells the lifecycle manager, unless somebody has done so since told was read.
func (u *use) send(told int64, now time.Duration) {
	if !u.told.CompareAndSwap(told, int64(now)) {
		return
	}
	u.uses.telling.Add(1)
	go func() {
		defer u.uses.telling.Add(-1)
		u.uses.tell(u.pod)
	}()
}

// untold says whether the agent was used after the lifecycle manager was told last.
func (u *use) untold(told int64, now time.Duration) bool {
	used := time.Duration(u.moved.Load())
	if u.unanswered.Load() > 0 {
		used = now
	}
	return used-time.Duration(told) > u.uses.every/closeShare
}

// tick tells what has not been told yet, and forgets an agent whose use is over.
func (u *use) tick() {
	s := u.uses
	s.mu.Lock()
	defer s.mu.Unlock()
	now, told := s.clock(), u.told.Load()
	wait := s.every - (now - time.Duration(told))
	switch {
	case wait > 0:
		u.timer.Reset(wait)
		return
	case u.untold(told, now):
		u.send(told, now)
	case u.requests == 0:
		delete(s.of, u.pod.UID)
		return
	}
	u.timer.Reset(s.every)
}

// end notes that a request is over. The last one of a Pod is told at once, but no more often than each tellEvery: where
// requests follow each other, tick tells of them.
func (u *use) end() {
	s := u.uses
	s.mu.Lock()
	defer s.mu.Unlock()
	u.requests--
	now, told := s.clock(), u.told.Load()
	if u.requests == 0 && now-u.endTold >= s.every && u.untold(told, now) {
		u.endTold = now
		u.send(told, now)
	}
}

// exchange is one request and its answer, or the upgraded connection that follows.
type exchange struct {
	use *use

	mu                         sync.Mutex
	sent, waiting, wasAnswered bool
}

// requestSent notes that the agent has got the whole request. Until then it is used as far as the client's bytes come.
func (x *exchange) requestSent() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.sent && !x.wasAnswered {
		x.sent, x.waiting = true, true
		x.use.unanswered.Add(1)
	}
}

// answered notes that the agent has begun its answer.
func (x *exchange) answered() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.wasAnswered = true
	if x.waiting {
		x.waiting = false
		x.use.unanswered.Add(-1)
		x.use.move()
	}
}

// end notes that nothing more comes.
func (x *exchange) end() {
	x.answered()
	x.use.end()
}

// modify is a hook of httputil.ReverseProxy.
func (x *exchange) modify(*http.Response) error {
	x.answered()
	return nil
}

// usedConn is a connection to an agent whose bytes count as use.
type usedConn struct {
	net.Conn
	use *use
}

// Read implements net.Conn.
func (c usedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.use.move()
	}
	return n, err
}

// Write implements net.Conn.
func (c usedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.use.move()
	}
	return n, err
}

// CloseWrite ends one direction. The other one goes on, and so does the use.
func (c usedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
