package webhook

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

const (
	// maxUnanswered bounds the connections on which no request has been answered yet, maxAnswered the others. API servers
	// have some hundreds of the latter at most, with HTTP/1.1.
	maxUnanswered = 1024
	maxAnswered   = 1024

	// maxHealth bounds those of the listener of health and metrics. It has few clients, and a probe must not be the oldest of
	// them before it has its answer.
	maxHealth = 1024
)

// connections bounds how many connections a server has. It never refuses a new one: where there are too many, it closes the
// oldest of those on which no request has been answered. The API server's first request is complete within milliseconds, so
// that a flood of silent connections closes its own.
//
// Connections on which requests have been answered are bounded apart, far above what API servers open: the one whose last
// answer is the longest ago is closed.
type connections struct {
	maxUnanswered, maxAnswered int
	// closed is told why a connection is closed.
	closed func(reason string)

	mu                   sync.Mutex
	open                 map[net.Conn]*connection
	unanswered, answered list.List
}

// Reasons for closing a connection, as the metric names them.
const (
	closedUnanswered = "unanswered"
	closedIdle       = "idle"
)

// connection is one connection's place in a list.
type connection struct {
	connections *connections
	conn        net.Conn
	in          *list.List
	element     *list.Element
}

type connectionKey struct{}

// attach makes a server's connections known.
func (c *connections) attach(s *http.Server) {
	c.open = map[net.Conn]*connection{}
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, c.add(conn))
	}
	next := s.ConnState
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			c.remove(conn)
		}
		if next != nil {
			next(conn, state)
		}
	}
}

// add takes a new connection in, and closes the oldest one if there are too many.
func (c *connections) add(conn net.Conn) *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	added := &connection{connections: c, conn: conn}
	c.open[conn] = added
	added.move(&c.unanswered)
	c.bound(&c.unanswered, c.maxUnanswered, closedUnanswered)
	return added
}

func (c *connections) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, ok := c.open[conn]; ok {
		known.forget()
	}
}

// bound closes connections at the front of a list until it has at most limit.
func (c *connections) bound(in *list.List, limit int, reason string) {
	for in.Len() > limit {
		oldest := in.Front().Value.(*connection)
		oldest.forget()
		terminate(oldest.conn)
		c.closed(reason)
	}
}

// answeredOn says that the connection that ctx belongs to has delivered a whole request, or got an answer.
func answeredOn(ctx context.Context) {
	known, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		return
	}
	c := known.connections
	c.mu.Lock()
	defer c.mu.Unlock()
	if known.in == nil {
		return // It is closed already.
	}
	known.move(&c.answered)
	c.bound(&c.answered, c.maxAnswered, closedIdle)
}

// move puts the connection at the end of a list.
func (c *connection) move(to *list.List) {
	if c.in == to {
		to.MoveToBack(c.element)
		return
	}
	if c.in != nil {
		c.in.Remove(c.element)
	}
	c.in, c.element = to, to.PushBack(c)
}

func (c *connection) forget() {
	c.in.Remove(c.element)
	c.in = nil
	delete(c.connections.open, c.conn)
}

// terminate closes a connection without a word. To take leave by TLS could mean to wait for a client that reads nothing.
func terminate(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}
