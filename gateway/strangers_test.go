package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// from is a connection from an address, which knows whether it was closed.
type from struct {
	net.Conn
	address string
	closed  bool
}

func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.address))
}

func (f *from) Close() error {
	f.closed = true
	return nil
}

func TestStrangers(t *testing.T) {
	closed := 0
	s := newStrangers(3, 2, func() { closed++ })
	open := func(address string) *from {
		c := &from{address: address}
		s.watch(c, http.StateNew)
		return c
	}
	expect := func(what string, count int, wantClosed ...*from) {
		t.Helper()
		for _, c := range wantClosed {
			if !c.closed {
				t.Errorf("%s: %s stands", what, c.address)
			}
		}
		if closed != count || s.all.Len() != len(s.known) || s.all.Len() > 3 {
			t.Errorf("%s: %d were closed, want %d; %d are known, %d in order", what, closed, count, len(s.known), s.all.Len())
		}
	}
	a1, a2 := open("203.0.113.1:1"), open("203.0.113.1:2")
	expect("two of one address", 0)
	a3 := open("203.0.113.1:3")
	expect("three of one address", 1, a1)
	b := open("203.0.113.2:1")
	expect("another address", 1)
	s.trust(s.remember(context.Background(), b))
	expect("one shows a good token", 1)
	c, d := open("203.0.113.3:1"), open("203.0.113.4:1")
	expect("too many of all", 2, a2)
	s.watch(d, http.StateClosed)
	s.watch(c, http.StateHijacked)
	s.watch(a3, http.StateClosed)
	s.watch(a1, http.StateClosed)
	expect("all have gone", 2)
	if len(s.known) != 0 || len(s.from) != 0 || b.closed || c.closed {
		t.Errorf("%d are known, of %d addresses", len(s.known), len(s.from))
	}
}

// onlyGood lets one token in.
type onlyGood struct{}

func (onlyGood) Authenticate(_ context.Context, token string, source netip.Addr) (string, error) {
	switch {
	case !source.IsLoopback():
		return "", errors.New("from nowhere")
	case token == "busy":
		return "", ErrBusy
	case token != "good":
		return "", ErrToken
	}
	return "frontend", nil
}

// Who opens connections and says nothing closes his own, and not those of callers who have shown a good token.
func TestSilentConnections(t *testing.T) {
	g, _ := newGateway(t, "127.0.0.1:1", func(o *Options) { o.Authenticator = onlyGood{} })
	var closed atomic.Int64
	g.strangers = newStrangers(10, 5, func() { closed.Add(1) })
	address := strings.TrimPrefix(serveGateway(t, g), "http://")
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		return conn
	}
	caller := dial()
	answers := bufio.NewReader(caller)
	ask := func() error {
		if _, err := io.WriteString(caller, "GET /v1/agents/alice HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer good\r\n\r\n"); err != nil {
			return err
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		return errors.Join(err, response.Body.Close())
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	silent := make([]net.Conn, 20)
	for i := range silent {
		silent[i] = dial()
	}
	waitFor(t, "silent connections stand", func() bool { return closed.Load() >= 15 })
	if n := closed.Load(); n != 15 {
		t.Errorf("%d were closed, want 15", n)
	}
	for i, conn := range silent[:15] {
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("connection %d of 20 stands: %v", i, err)
		}
	}
	if err := ask(); err != nil {
		t.Errorf("a caller who was known: %v", err)
	}
}

// Who is refused is answered without waiting for his body, and the connection ends.
func TestStrangersBody(t *testing.T) {
	g, _ := newGateway(t, "127.0.0.1:1", func(o *Options) { o.Authenticator = onlyGood{} }, readyAgent("alice", lifecycle.Free)...)
	address := strings.TrimPrefix(serveGateway(t, g), "http://")
	for _, tt := range []struct {
		path, token string
		code        int
	}{
		{"/v1/agents/alice/connect/", "bad", http.StatusUnauthorized},
		{"/v1/agents/alice/connect/", "busy", http.StatusTooManyRequests},
		{"/nothing", "bad", http.StatusNotFound},
		{"/v1/agents/nobody/connect/", "good", http.StatusNotFound},
		{"/v1/agents/alice/connect/%zz", "good", http.StatusBadRequest},
		{"/v1/agents/" + strings.Repeat("u", maxUser+1), "good", http.StatusBadRequest},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 100\r\n\r\nx", tt.path, tt.token)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s by %s: %v", tt.path, tt.token, err)
			continue
		}
		_, err = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if err != nil || response.StatusCode != tt.code {
			t.Errorf("%s by %s: %s, %v; want %d", tt.path, tt.token, response.Status, err, tt.code)
		}
		if tt.code == http.StatusTooManyRequests && response.Header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("%s by %s: the connection stands: %v", tt.path, tt.token, err)
		}
	}
}
