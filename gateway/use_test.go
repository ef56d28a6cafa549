package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// The times of the agents in these tests: a second stands for a minute and more.
const (
	testTellEvery = 400 * time.Millisecond
	testIdleAfter = 3 * time.Second
	testUseFor    = 2 * testIdleAfter
)

// useAgent answers as its paths say, for testUseFor.
func useAgent(conn net.Conn) {
	reader := bufio.NewReader(conn)
	request, err := http.ReadRequest(reader)
	if err != nil {
		return
	}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
	const streaming = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
	ticks := int(testUseFor / (200 * time.Millisecond))
	switch request.URL.Path {
	case "/websocket":
		_, _ = io.WriteString(conn, switching)
		_, _ = io.Copy(conn, reader)
	case "/half-closed": // what the client has to say is over, and the agent goes on
		_, _ = io.WriteString(conn, switching)
		_, _ = io.Copy(io.Discard, reader)
		for range ticks {
			_, _ = io.WriteString(conn, "t")
			time.Sleep(200 * time.Millisecond)
		}
	case "/stream":
		_, _ = io.WriteString(conn, streaming)
		for range ticks {
			_, _ = io.WriteString(conn, "9\r\ndata: t\n\n\r\n")
			time.Sleep(200 * time.Millisecond)
		}
		_, _ = io.WriteString(conn, "0\r\n\r\n")
	case "/slow":
		_, _ = io.Copy(io.Discard, request.Body)
		time.Sleep(testUseFor)
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
	case "/upload":
		n, _ := io.Copy(io.Discard, request.Body)
		body := fmt.Sprint(n, " bytes")
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	case "/silent": // a stream of which nothing but the header comes
		_, _ = io.WriteString(conn, streaming)
		_, _ = reader.ReadByte()
	default:
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

// managed is an agent with a lifecycle manager.
type managed struct {
	idle  *idle.Manager
	ended chan error

	// told counts the calls of the gateway, of which each takes latency, a time.Duration.
	told, latency atomic.Int64
}

// startManaged runs a lifecycle manager, and returns a gateway beside it.
func startManaged(t *testing.T, user string) (*Gateway, *managed, func() *Gateway) {
	t.Helper()
	agent := hostileAgent(t, useAgent)
	m := &managed{ended: make(chan error, 1), idle: idle.New(idle.Config{
		Enabled: true, Timeout: testIdleAfter, CheckInterval: 50 * time.Millisecond, Warning: 200 * time.Millisecond,
	})}
	public := idle.PublicHandler(m.idle)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/activity" {
			time.Sleep(time.Duration(m.latency.Load()))
			m.told.Add(1)
		}
		public.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { m.ended <- m.idle.Run(ctx) }()
	another := func() *Gateway {
		g, _ := newGateway(t, "", func(o *Options) {
			o.Address = func(_ *corev1.Pod, port int32) string {
				if port == lifecycle.ManagerPort {
					return strings.TrimPrefix(server.URL, "http://")
				}
				return agent
			}
		}, readyAgent(user, lifecycle.Free)...)
		g.uses.every = testTellEvery
		return g
	}
	return another(), m, another
}

// dialUpgrade sends a request to switch protocols through a gateway and reads the answer's head.
func dialUpgrade(t *testing.T, gateway, path string) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(gateway, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", path)
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", response.Status)
	}
	return conn.(*net.TCPConn), reader
}

// slowBody is read bit by bit, for as long as testUseFor.
type slowBody struct{ left int }

func (b *slowBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	b.left--
	time.Sleep(200 * time.Millisecond)
	return copy(p, "x"), nil
}

// What is used through the gateway for longer than the idle timeout is not stopped; once the use is over, it is.
func TestUsedAgentIsNotStopped(t *testing.T) {
	t.Parallel()
	ticks := int(testUseFor / (200 * time.Millisecond))
	get := func(t *testing.T, url string, body io.Reader) string {
		t.Helper()
		method := http.MethodGet
		if body != nil {
			method = http.MethodPost
		}
		request, err := http.NewRequestWithContext(t.Context(), method, url, body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Errorf("the answer ended with %v", err)
		}
		return string(text)
	}
	for name, use := range map[string]func(t *testing.T, agent string){
		"websocket": func(t *testing.T, agent string) {
			base, path, _ := strings.Cut(strings.TrimPrefix(agent, "http://"), "/")
			conn, reader := dialUpgrade(t, base, "/"+path+"websocket")
			for range ticks {
				if _, err := io.WriteString(conn, "ping\n"); err != nil {
					t.Fatal(err)
				}
				if line, err := reader.ReadString('\n'); line != "ping\n" {
					t.Fatalf("%q, %v", line, err)
				}
				time.Sleep(200 * time.Millisecond)
			}
			conn.Close()
		},
		"half-closed": func(t *testing.T, agent string) {
			base, path, _ := strings.Cut(strings.TrimPrefix(agent, "http://"), "/")
			conn, reader := dialUpgrade(t, base, "/"+path+"half-closed")
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(reader); len(text) != ticks || err != nil {
				t.Errorf("%q, %v", text, err)
			}
		},
		"stream": func(t *testing.T, agent string) {
			if text := get(t, agent+"stream", nil); strings.Count(text, "data: t") != ticks {
				t.Errorf("%q", text)
			}
		},
		"slow answer": func(t *testing.T, agent string) {
			if text := get(t, agent+"slow", nil); text != "done" {
				t.Errorf("%q", text)
			}
		},
		"slow answer to a body": func(t *testing.T, agent string) {
			if text := get(t, agent+"slow", strings.NewReader("a question")); text != "done" {
				t.Errorf("%q", text)
			}
		},
		"upload": func(t *testing.T, agent string) {
			if text := get(t, agent+"upload", &slowBody{ticks}); text != fmt.Sprint(ticks, " bytes") {
				t.Errorf("%q", text)
			}
		},
		"short requests": func(t *testing.T, agent string) {
			for range ticks {
				get(t, agent, nil)
				time.Sleep(200 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, m, _ := startManaged(t, "alice")
			gateway := serveGateway(t, g)
			began := time.Now()
			use(t, gateway+pathPrefix+"alice/connect/")
			lasted, told := time.Since(began), m.told.Load()
			select {
			case err := <-m.ended:
				t.Errorf("the agent was stopped while it was used: %v", err)
				return
			default:
			}
			// Once at the beginning, once each testTellEvery, and requests that follow each other end as often.
			if most := 2 + 2*int64(lasted/testTellEvery); told > most {
				t.Errorf("told %d times in %s, want at most %d", told, lasted, most)
			}
			waitFor(t, "the end was not told", func() bool {
				return m.idle.Status().LastActivity.At.After(began.Add(lasted - testTellEvery))
			})
			select {
			case err := <-m.ended:
				if !errors.Is(err, idle.ErrIdle) {
					t.Errorf("the manager ended with %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("the agent is not stopped though nobody uses it any more")
			}
			waitFor(t, "a use that is over is remembered", func() bool {
				g.uses.mu.Lock()
				defer g.uses.mu.Unlock()
				return len(g.uses.of) == 0
			})
		})
	}
}

// A connection that merely stands does not keep its agent.
func TestStandingConnectionIsNoUse(t *testing.T) {
	t.Parallel()
	for name, stand := range map[string]func(t *testing.T, gateway string){
		"websocket": func(t *testing.T, gateway string) { dialUpgrade(t, gateway, pathPrefix+"alice/connect/websocket") },
		"stream without events": func(t *testing.T, gateway string) {
			response, err := http.Get(gateway + pathPrefix + "alice/connect/silent")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { response.Body.Close() })
		},
		"upload that stalls": func(t *testing.T, gateway string) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(gateway, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			fmt.Fprintf(conn, "POST %salice/connect/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhello", pathPrefix)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, m, _ := startManaged(t, "alice")
			stand(t, serveGateway(t, g))
			select {
			case err := <-m.ended:
				if !errors.Is(err, idle.ErrIdle) {
					t.Errorf("the manager ended with %v", err)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("it was told %d times, and keeps its agent", m.told.Load())
			}
		})
	}
}

// Bytes that pass after a long silence are told at once, not when somebody happens to look.
func TestUseAfterSilenceIsToldAtOnce(t *testing.T) {
	t.Parallel()
	g, m, _ := startManaged(t, "alice")
	conn, reader := dialUpgrade(t, serveGateway(t, g), pathPrefix+"alice/connect/websocket")
	time.Sleep(3 * testTellEvery)
	told := m.told.Load()
	g.uses.mu.Lock()
	g.uses.of[types.UID("p-"+Name("alice"))].timer.Stop() // nobody looks
	g.uses.mu.Unlock()
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.ReadByte(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it was not told", func() bool { return m.told.Load() > told })
}

// Two gateways tell of what each of them carries.
func TestTwoGatewaysTellOfUse(t *testing.T) {
	t.Parallel()
	first, m, another := startManaged(t, "alice")
	gateways := []string{serveGateway(t, first), serveGateway(t, another())}
	var conns []io.Writer
	for _, gateway := range gateways {
		conn, _ := dialUpgrade(t, gateway, pathPrefix+"alice/connect/websocket")
		conns = append(conns, conn)
	}
	for _, conn := range conns {
		for range int(testUseFor / (200 * time.Millisecond) / 2) {
			if _, err := io.WriteString(conn, "x"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
	}
	select {
	case err := <-m.ended:
		t.Errorf("the agent was stopped while it was used: %v", err)
	default:
	}
}

// A Pod that has gone, or has another address, is not told, and one that is not ready for a moment is.
func TestWhoIsToldOfUse(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(pod *corev1.Pod)
		told   bool
	}{
		"ready":                  {func(*corev1.Pod) {}, true},
		"not ready for a moment": {func(pod *corev1.Pod) { pod.Status.Conditions[0].Status = corev1.ConditionFalse }, true},
		"at another address":     {func(pod *corev1.Pod) { pod.Status.PodIP = "192.0.2.2" }, false},
		"another of its name":    {func(pod *corev1.Pod) { pod.UID = "another" }, false},
		"being deleted": {func(pod *corev1.Pod) {
			pod.DeletionTimestamp, pod.Finalizers = new(metav1.Now()), []string{"example.com/x"}
		},
			false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, m, _ := startManaged(t, "alice")
			pod := g.fleet.podOf(Name("alice"))
			now := pod.DeepCopy()
			tt.change(now)
			if err := g.fleet.pods.Update(now); err != nil {
				t.Fatal(err)
			}
			g.tellUse(pod)
			if got := m.told.Load() > 0; got != tt.told {
				t.Errorf("told: %t, want %t", got, tt.told)
			}
		})
	}
}
