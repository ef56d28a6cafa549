package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// goodbye is how long connections get to end by themselves once their clients were sent away. An HTTP/2 connection
	// takes a second after its last answer, so that its client has read the goodbye before it ends.
	goodbye = 3 * time.Second

	// goodbyeEvery is how often it is looked whether connections have come or gone.
	goodbyeEvery = 20 * time.Millisecond

	// lastAnswers bounds the wait for answers that are under way: none may take longer.
	lastAnswers = writeTimeout
)

// uploadBuffer bounds what HTTP/2 holds of bodies that no handler has read yet, for a connection, in bytes.
const uploadBuffer = 128 << 10

// maxFrame is the largest HTTP/2 frame, in bytes, and the least that the protocol allows. The server makes room for a frame
// when it is announced.
const maxFrame = 16 << 10

// drainer ends a server's connections without losing a request.
//
// http.Server.Shutdown alone would: it closes every connection that is idle at that moment, and a request that the
// client has just sent on one is lost. HTTP/2 has a way out. The server names the last request that it will answer
// (GOAWAY), and the client sends what it sent after that again elsewhere. net/http does say goodbye so, but in the same
// breath as it closes what is idle. So here HTTP/2 is set up on a server of its own, farewell, which has no listener and
// no connections to close: its Shutdown says goodbye on all connections of the real server and does nothing else. The
// real one is shut down when they have ended.
type drainer struct {
	farewell http.Server
	leaving  atomic.Bool

	mu   sync.Mutex
	open map[net.Conn]struct{}
}

// attach sets HTTP/2 up on a server and follows its connections.
func (d *drainer) attach(s *http.Server) error {
	d.open = map[net.Conn]struct{}{}
	// Configured for itself, it takes its limits from the farewell server, and timeouts from the one it serves for.
	d.farewell.TLSConfig, d.farewell.IdleTimeout = s.TLSConfig, s.IdleTimeout
	//nolint:staticcheck // Deprecated for net/http's own HTTP/2, which cannot say goodbye without closing what is idle.
	if err := http2.ConfigureServer(&d.farewell, &http2.Server{
		MaxUploadBufferPerConnection: uploadBuffer, MaxUploadBufferPerStream: uploadBuffer, MaxReadFrameSize: maxFrame,
	}); err != nil {
		return fmt.Errorf("set up HTTP/2: %w", err)
	}
	s.TLSNextProto = d.farewell.TLSNextProto
	s.ConnState = d.follow
	return nil
}

func (d *drainer) follow(c net.Conn, state http.ConnState) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch state {
	case http.StateNew:
		d.open[c] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(d.open, c)
	}
}

func (d *drainer) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// wrap sends clients away with each answer once the server is leaving: those whose connection is newer than the
// goodbye, and those of HTTP/1.1.
func (d *drainer) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if d.leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// run ends all connections and then the listener.
func (d *drainer) run(ctx context.Context, s *http.Server) error {
	d.leaving.Store(true)
	ctx, cancel := context.WithTimeout(ctx, goodbye+lastAnswers)
	defer cancel()
	go d.sayGoodbye(ctx)
	for start := time.Now(); d.left() > 0 && time.Since(start) < goodbye; {
		time.Sleep(goodbyeEvery)
	}
	if err := s.Shutdown(ctx); err != nil {
		return errors.Join(err, s.Close())
	}
	return nil
}

// sayGoodbye says goodbye on all connections, and again for those that come until ctx ends. None hears it twice.
func (d *drainer) sayGoodbye(ctx context.Context) {
	for ctx.Err() == nil {
		_ = d.farewell.Shutdown(ctx) // with no connections to wait for it cannot fail
		select {
		case <-ctx.Done():
		case <-time.After(goodbyeEvery):
		}
	}
}
