package idle

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/dexorder/agent-lifecycle/activity"
)

const (
	// maxConnections bounds the connections from the network. One costs some 20 KiB of the agent's memory.
	maxConnections = 64

	// maxSubscribers bounds the streams of events from the network, maxOwnSubscribers those of the agent itself.
	maxSubscribers    = 16
	maxOwnSubscribers = 64

	// maxHeader bounds the header of a request, in bytes.
	maxHeader = 16 << 10

	// writeTimeout is for what a client takes at once.
	writeTimeout = 10 * time.Second
)

// ServeSocket serves the whole API to the agent on its own socket. It returns when the listener is closed.
func ServeSocket(listener net.Listener, m *Manager) error {
	return newServer(Handler(m)).Serve(listener)
}

// ServeNetwork serves on the network the part of the API that is for the gateway. With a verifier, activity and snooze
// are taken from the agent's own Pod and from the gateway alone; see package activity. It bounds what strangers can make
// the agent hold: connections, streams of events, and requests a second of each address. It returns when the listener
// is closed.
func ServeNetwork(listener net.Listener, m *Manager, verifier *activity.Verifier, log *slog.Logger) error {
	server := newServer(newNetwork(m, verifier, log))
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if bounded, ok := c.(*boundedConn); ok {
			return context.WithValue(ctx, slotKey{}, bounded.slot)
		}
		return ctx
	}
	return server.Serve(&boundedListener{listener, &slots{max: maxConnections}})
}

func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second,
		IdleTimeout: 10 * time.Second, MaxHeaderBytes: maxHeader,
	}
}

// slotKey is the key of a request's connection slot in its context.
type slotKey struct{}

// boundedListener bounds the connections that are open.
type boundedListener struct {
	net.Listener
	slots *slots
}

// Accept implements net.Listener.
func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if s := l.slots.acquire(addressOf(c.RemoteAddr()), false, func() { _ = c.Close() }); s != nil {
			return &boundedConn{c, s}, nil
		}
		_ = c.Close()
	}
}

type boundedConn struct {
	net.Conn
	slot *slot
}

// Close implements net.Conn.
func (c *boundedConn) Close() error {
	c.slot.release()
	return c.Conn.Close()
}

// CloseWrite lets the server end a connection so that the client still reads the answer.
func (c *boundedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
