package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestLimits(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(Limits{
		Requests: map[lifecycle.UserType]Rate{lifecycle.Free: {PerSecond: 0.5, Burst: 2}, lifecycle.Paid: {PerSecond: 1, Burst: 4}},
		Wakes:    map[lifecycle.UserType]Rate{lifecycle.Free: {PerSecond: 0.001, Burst: 1}},
		Held:     1,
	}, func() time.Time { return now })
	take2 := func(user string, userType lifecycle.UserType, want int) {
		t.Helper()
		got := 0
		for range 10 {
			if _, ok := l.request(user, userType); ok {
				got++
			}
		}
		if got != want {
			t.Errorf("%s had %d requests, want %d", user, got, want)
		}
	}
	take2("a", lifecycle.Free, 2)
	take2("b", lifecycle.Free, 2)
	take2("c", lifecycle.Paid, 4)
	take2("d", lifecycle.Enterprise, 10)
	if wait, ok := l.request("a", lifecycle.Free); ok || wait != 2*time.Second {
		t.Errorf("the next one in %s, %t; want 2s", wait, ok)
	}
	now = now.Add(2 * time.Second)
	take2("a", lifecycle.Free, 1)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := l.wake(ctx, lifecycle.Free); err != nil {
		t.Error(err)
	}
	if err := l.wake(ctx, lifecycle.Free); !errors.Is(err, errLimited) {
		t.Errorf("a second agent: %v", err)
	}
	if err := l.wake(ctx, lifecycle.Paid); err != nil {
		t.Errorf("another type: %v", err)
	}

	release, ok := take(l.held.all)
	if _, again := take(l.held.all); !ok || again {
		t.Errorf("places: %t, then %t", ok, again)
	}
	release()
	if _, ok := take(l.held.all); !ok {
		t.Error("a place that was given back is taken")
	}
	for i := range maxBuckets + 10 {
		l.request(fmt.Sprint(i), lifecycle.Free)
	}
	if len(l.buckets) > maxBuckets {
		t.Errorf("%d buckets are remembered", len(l.buckets))
	}
}

// Users of one type who wait for agents that do not come leave room for the others.
func TestHold(t *testing.T) {
	l := newLimiter(Limits{Held: 4, Streams: 1}, time.Now)
	release, ok := l.held.take(lifecycle.Anonymous)
	if !ok {
		t.Fatal("there is no place")
	}
	for _, tt := range []struct {
		userType lifecycle.UserType
		want     bool
	}{
		{lifecycle.Anonymous, true}, {lifecycle.Anonymous, false}, {lifecycle.Paid, true}, {"", true}, {lifecycle.Enterprise, false},
	} {
		if _, ok := l.held.take(tt.userType); ok != tt.want {
			t.Errorf("%q: a place %t, want %t", tt.userType, ok, tt.want)
		}
	}
	release()
	if _, ok := l.held.take("unheard of"); !ok {
		t.Error("a place that was given back is not there")
	}
	if _, ok := l.held.take(lifecycle.Enterprise); ok {
		t.Error("there are more places than there are")
	}
	if len(l.held.of[lifecycle.Enterprise]) != 0 || len(l.held.of[lifecycle.Anonymous]) != 1 {
		t.Errorf("enterprise has %d places, anonymous %d", len(l.held.of[lifecycle.Enterprise]), len(l.held.of[lifecycle.Anonymous]))
	}
}

// One user has so many connections, all users of a type half of all, and who goes makes room.
func TestConnections(t *testing.T) {
	l := newLimiter(Limits{Connections: map[lifecycle.UserType]int{lifecycle.Free: 2, lifecycle.Anonymous: 9}, Connected: 8}, time.Now)
	open := func(user string, userType lifecycle.UserType, wantLimit string) (release func()) {
		t.Helper()
		release, limit, err := l.connect(user, userType)
		if limit != wantLimit || (err == nil) != (wantLimit == "") || err != nil && !errors.Is(err, errLimited) {
			t.Errorf("%s: limit %q, %v; want %q", user, limit, err, wantLimit)
		}
		return release
	}
	first := open("a", lifecycle.Free, "")
	open("a", lifecycle.Free, "")
	open("a", lifecycle.Free, limitedConnections)
	open("b", lifecycle.Free, "")
	first()
	again := open("a", lifecycle.Free, "")
	for range 4 {
		open("c", lifecycle.Anonymous, "")
	}
	open("c", lifecycle.Anonymous, limitedConnected) // half of 8
	open("d", lifecycle.Paid, "")
	open("d", lifecycle.Paid, limitedConnected) // all 8
	again()
	open("d", lifecycle.Paid, "")
	if l.connections["a"] != 1 || l.connections["d"] != 2 || len(l.connected.all) != 8 {
		t.Errorf("%v of %d", l.connections, len(l.connected.all))
	}
}

// A connection that was taken over counts for its user until it ends.
func TestStandingConnections(t *testing.T) {
	address := hostileAgent(t, func(conn net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, conn)
	})
	g, _ := newGateway(t, address, func(o *Options) { o.Limits.Connections = map[lifecycle.UserType]int{lifecycle.Free: 2} },
		append(readyAgent("alice", lifecycle.Free), readyAgent("bob", lifecycle.Free)...)...)
	gateway := serveGateway(t, g)
	upgrade := func(user string, code int) (http.Header, io.Closer) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, gateway+pathPrefix+user+"/connect/", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Connection", "Upgrade")
		request.Header.Set("Upgrade", "echo")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode != code {
			t.Errorf("%s: %s, want %d", user, response.Status, code)
		}
		return response.Header, response.Body
	}
	_, standing := upgrade("alice", http.StatusSwitchingProtocols)
	upgrade("alice", http.StatusSwitchingProtocols)
	if header, _ := upgrade("alice", http.StatusTooManyRequests); header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	upgrade("bob", http.StatusSwitchingProtocols)
	standing.Close()
	waitFor(t, "a connection that has ended counts still", func() bool {
		g.limiter.mu.Lock()
		defer g.limiter.mu.Unlock()
		return g.limiter.connections["alice"] == 1
	})
	upgrade("alice", http.StatusSwitchingProtocols)
}
