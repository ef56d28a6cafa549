package connections

import (
	"context"
	"net"
	"net/http"
	"slices"
	"testing"
)

// deadConn is a connection that knows whether it was closed.
type deadConn struct {
	net.Conn
	closed bool
}

func (c *deadConn) Close() error { c.closed = true; return nil }

func TestOldestUnansweredIsClosed(t *testing.T) {
	var reasons []string
	c := &Limit{MaxUnanswered: 2, MaxAnswered: 2, Closed: func(reason string) { reasons = append(reasons, reason) }}
	server := &http.Server{}
	c.Attach(server)
	var conns []*deadConn
	open := func() context.Context {
		conn := &deadConn{}
		conns = append(conns, conn)
		return server.ConnContext(context.Background(), conn)
	}
	closed := func() (all []int) {
		for i, conn := range conns {
			if conn.closed {
				all = append(all, i)
			}
		}
		return all
	}
	check := func(step string, want ...int) {
		t.Helper()
		if got := closed(); !slices.Equal(got, want) {
			t.Errorf("%s: closed %v, want %v", step, got, want)
		}
	}
	zero := open()
	Answered(zero)
	open()
	open()
	check("two silent ones beside one that has been answered")
	three := open()
	check("a third silent one", 1)
	Answered(three)
	open()
	check("room again", 1)
	Answered(zero) // three's answer is the oldest now
	five := open()
	Answered(five)
	check("three that have been answered", 1, 2, 3)
	Answered(three) // is closed, and stays forgotten
	server.ConnState(conns[4], http.StateClosed)
	if c.unanswered.Len() != 0 || c.answered.Len() != 2 || len(c.open) != 2 {
		t.Errorf("%d silent, %d answered, %d open; want 0, 2, 2", c.unanswered.Len(), c.answered.Len(), len(c.open))
	}
	if want := []string{Unanswered, Unanswered, Idle}; !slices.Equal(reasons, want) {
		t.Errorf("reasons %v, want %v", reasons, want)
	}
}
