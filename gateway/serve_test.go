package gateway

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// stopGateway serves a Gateway's API at the URL until stop is called; done gets something when it has ended.
func stopGateway(t *testing.T, g *Gateway) (url string, stop func(), done <-chan error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- g.serve(ctx, context.WithoutCancel(ctx), listener) }()
	return "http://" + listener.Addr().String(), cancel, ended
}

// A connection that was taken over gets the grace of the gateway, as an ordinary request does: until its own end, or until the
// grace is over.
func TestUpgradedConnectionsGetTheGrace(t *testing.T) {
	t.Parallel()
	const grace = 3 * time.Second
	for name, tt := range map[string]struct {
		path string

		// ends says that the client ends the connection while the grace lasts.
		ends bool
	}{
		"ends by itself":         {"websocket", true},
		"stands until the end":   {"websocket", false},
		"an ordinary one stands": {"slow", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, _ := newGateway(t, hostileAgent(t, useAgent), func(o *Options) { o.Grace = grace }, readyAgent("alice", lifecycle.Free)...)
			url, stop, done := stopGateway(t, g)
			var conn net.Conn
			var reader io.Reader
			if tt.path == "websocket" {
				conn, reader = dialUpgrade(t, url, pathPrefix+"alice/connect/websocket")
			} else {
				var err error
				if conn, err = net.Dial("tcp", strings.TrimPrefix(url, "http://")); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				if _, err := io.WriteString(conn, "GET "+pathPrefix+"alice/connect/slow HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				reader = conn
				waitFor(t, "nothing is delivered", func() bool { return g.delivering.Load() > 0 })
			}
			stop()
			began := time.Now()
			if err := conn.SetDeadline(began.Add(10 * grace)); err != nil {
				t.Fatal(err)
			}
			if tt.path == "websocket" {
				for range 5 {
					time.Sleep(grace / 10)
					if _, err := io.WriteString(conn, "x"); err != nil {
						t.Fatal(err)
					}
					if _, err := io.ReadFull(reader, make([]byte, 1)); err != nil {
						t.Fatalf("cut %s after the gateway was told to stop: %v", time.Since(began), err)
					}
				}
			}
			select {
			case err := <-done:
				t.Fatalf("the gateway ended with a connection that stands: %v", err)
			default:
			}
			if tt.ends {
				conn.Close()
			} else if n, err := io.Copy(io.Discard, reader); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%d bytes came at the end: %v", n, err)
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			took := time.Since(began)
			if tt.ends && took >= grace || !tt.ends && took < grace {
				t.Errorf("the gateway ended after %s; the grace is %s", took, grace)
			}
			if left := g.delivering.Load(); left > 0 {
				t.Errorf("%d connections stand", left)
			}
		})
	}
}

// The end of a use that the gateway's own end brings about is told before the process may go.
func TestLastUseIsToldWhenTheGatewayStops(t *testing.T) {
	t.Parallel()
	g, m, _ := startManaged(t, "alice")
	g.options.Grace = 300 * time.Millisecond
	url, stop, done := stopGateway(t, g)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if r, err := http.Get(url + pathPrefix + "alice/connect/slow"); err == nil { // it is cut off, or answered with an error
			r.Body.Close()
		}
	}()
	waitFor(t, "it was not told of the request", func() bool { return m.told.Load() > 0 })
	time.Sleep(testTellEvery / 2) // so that the end is news
	told := m.told.Load()
	m.latency.Store(int64(500 * time.Millisecond))
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if m.told.Load() == told {
		t.Error("the agent does not know how long it was used")
	}
	<-ended
}
