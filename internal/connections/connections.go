// Package connections bounds how many connections an HTTP server holds, without ever refusing a new one.
package connections

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// Limit bounds the connections of one server. Where there are too many, it closes the oldest of those on which no request
// has been answered. Whoever is meant seriously sends a complete request within milliseconds, so that a flood of silent
// connections closes its own.
//
// Connections on which requests have been answered are bounded apart: the one whose last answer is the longest ago is
// closed.
type Limit struct {
	// MaxUnanswered bounds the connections on which no request has been answered yet, MaxAnswered the others.
	MaxUnanswered, MaxAnswered int

	// Closed hears why a connection is closed: Unanswered or Idle. It may be nil.
	Closed func(reason string)

	mu                   sync.Mutex
	open                 map[net.Conn]*connection
	unanswered, answered list.List
}

// Reasons for closing a connection.
const (
	Unanswered = "unanswered"
	Idle       = "idle"
)

// connection is one connection's place in a list.
type connection struct {
	limit   *Limit
	conn    net.Conn
	in      *list.List
	element *list.Element
}

type connectionKey struct{}

// Attach makes the limit hear of a server's connections. It is called once, before the server serves.
func (l *Limit) Attach(s *http.Server) {
	l.open = map[net.Conn]*connection{}
	s.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connectionKey{}, l.add(conn))
	}
	next := s.ConnState
	s.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			l.remove(conn)
		}
		if next != nil {
			next(conn, state)
		}
	}
}

// add takes a new connection in, and closes the oldest one if there are too many.
func (l *Limit) add(conn net.Conn) *connection {
	l.mu.Lock()
	defer l.mu.Unlock()
	added := &connection{limit: l, conn: conn}
	l.open[conn] = added
	added.move(&l.unanswered)
	l.bound(&l.unanswered, l.MaxUnanswered, Unanswered)
	return added
}

func (l *Limit) remove(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known, ok := l.open[conn]; ok {
		known.forget()
	}
}

// bound closes connections at the front of a list until it has at most limit.
func (l *Limit) bound(in *list.List, limit int, reason string) {
	for in.Len() > limit {
		oldest := in.Front().Value.(*connection)
		oldest.forget()
		terminate(oldest.conn)
		if l.Closed != nil {
			l.Closed(reason)
		}
	}
}

// Answered says that the connection of a request's context has delivered a whole request, or got an answer.
func Answered(ctx context.Context) {
	known, ok := ctx.Value(connectionKey{}).(*connection)
	if !ok {
		return
	}
	l := known.limit
	l.mu.Lock()
	defer l.mu.Unlock()
	if known.in == nil {
		return // It is closed already.
	}
	known.move(&l.answered)
	l.bound(&l.answered, l.MaxAnswered, Idle)
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
	delete(c.limit.open, c.conn)
}

// terminate closes a connection without a word. To take leave by TLS could mean to wait for a client that reads nothing.
func terminate(conn net.Conn) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	_ = conn.Close()
}
