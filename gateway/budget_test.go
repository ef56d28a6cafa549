package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// endless is a stream on which the same is said for ever; read counts its bytes.
type endless struct {
	text string
	read int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text[e.read%len(e.text):])
	e.read += n
	return n, nil
}

func TestBudget(t *testing.T) {
	now := newClock()
	b := newBudget(now.Now)
	flood := func(text string) (events, read int) {
		e := &endless{text: text}
		err := readEvents(b.reader(e), func() {}, func(string, string) error {
			if err := b.event(); err != nil {
				return err
			}
			events++
			return nil
		})
		if !errors.Is(err, errFlood) {
			t.Errorf("the stream ended with %v", err)
		}
		return events, e.read
	}
	const short = "data: x\n\n"
	if events, _ := flood(short); events != eventBurst {
		t.Errorf("%d events were taken, want %d", events, eventBurst)
	}
	// A new connection has no new budget.
	if events, _ := flood(short); events != 0 {
		t.Errorf("%d events more were taken at once", events)
	}
	now.advance(10 * time.Second)
	if events, _ := flood(short); events != 10*eventsPerSecond {
		t.Errorf("%d events were taken after 10 s, want %d", events, 10*eventsPerSecond)
	}
	// What is no event has its price too.
	now.advance(time.Hour)
	for _, text := range []string{"\n", ": alive\n", "id: " + strings.Repeat("x", 1000) + "\n"} {
		if _, read := flood(text); read > byteBurst+maxLine {
			t.Errorf("%.10q: %d bytes were read, want about %d", text, read, byteBurst)
		}
		now.advance(time.Hour)
	}
}

// What an agent says in an hour, changing its mind every minute, is far from its budget.
func TestBudgetOfUsualAgent(t *testing.T) {
	now := newClock()
	b := newBudget(now.Now)
	for minute := range 60 {
		text := ": alive\n\n: alive\n\nevent: state\ndata: {\"state\":\"RUNNING\",\"since\":\"2026-01-02T03:04:05.123456789Z\"}\n\n" +
			"event: warning\ndata: {\"deadline\":\"2026-01-02T03:04:05.123456789Z\",\"secondsLeft\":60}\n\n"
		if err := readEvents(b.reader(strings.NewReader(text)), func() {}, func(string, string) error { return b.event() }); !errors.Is(err, io.EOF) {
			t.Fatalf("minute %d: %v", minute, err)
		}
		now.advance(time.Minute)
	}
}

// talk answers one request for events with what say writes.
func talk(conn net.Conn, say func(w io.Writer) error) error {
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"); err != nil {
		return err
	}
	return say(conn)
}

// An agent that says as much as it can is heard as often as its budget allows and no more; then the stream is closed, and it is not asked
// again soon.
func TestTalkativeAgent(t *testing.T) {
	closed := make(chan struct{}, 100)
	address := hostileAgent(t, func(conn net.Conn) {
		_ = talk(conn, func(w io.Writer) error {
			for i := 0; ; i++ {
				state := []lifecycle.State{lifecycle.Idle, lifecycle.Running}[i%2]
				if _, err := fmt.Fprintf(w, "event: state\ndata: {\"state\":%q,\"since\":\"2026-01-02T03:04:05Z\"}\n\n", state); err != nil {
					return err
				}
			}
		})
		closed <- struct{}{}
	})
	now := newClock()
	g, _ := newGateway(t, address, func(o *Options) { o.Now = now.Now }, readyAgent("mallory", lifecycle.Anonymous)...)
	changed, cancel := g.fleet.listen(Name("mallory"))
	defer cancel()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.watcher.run(ctx) }()
	defer stop()
	for range 2 { // it is asked again, and has nothing left
		select {
		case <-closed:
		case <-time.After(time.Minute):
			t.Fatal("an agent that says too much is still heard")
		}
	}
	stop()
	<-done
	<-changed
	if got := metric(t, g.options.Metrics.limited.WithLabelValues(limitedEvents)); got < 2 {
		t.Errorf("%v streams were closed for saying too much, want 2", got)
	}
}

// A Pod whose address changes is listened to at the new one: at the old one somebody else may answer.
func TestListenAtNewAddress(t *testing.T) {
	asked := make(chan string, 10)
	address := hostileAgent(t, func(conn net.Conn) {
		_ = talk(conn, func(io.Writer) error {
			_, err := conn.Read(make([]byte, 1)) // until the gateway hangs up
			return err
		})
	})
	g, api := newGateway(t, address, func(o *Options) {
		o.Address = func(pod *corev1.Pod, _ int32) string { asked <- pod.Status.PodIP; return address }
	}, readyAgent("alice", lifecycle.Free)...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.watcher.run(ctx) }()
	defer func() { stop(); <-done }()
	if ip := <-asked; ip != "192.0.2.1" {
		t.Fatalf("listened at %s", ip)
	}
	pods := api.CoreV1().Pods("agents")
	pod, err := pods.Get(t.Context(), Name("alice"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.PodIP = "192.0.2.2"
	if _, err := pods.Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case ip := <-asked:
		if ip != "192.0.2.2" {
			t.Errorf("listened at %s again", ip)
		}
	case <-time.After(30 * time.Second):
		t.Error("it is still listened to at the old address")
	}
}

// A stream that was broken off is taken up again only if the Pod still is who answers there.
func TestListenToNoStranger(t *testing.T) {
	heard := make(chan struct{}, 10)
	address := hostileAgent(t, func(conn net.Conn) {
		_ = talk(conn, func(w io.Writer) error {
			_, err := io.WriteString(w, "event: state\ndata: {\"state\":\"SHUTDOWN\",\"since\":\"2026-01-02T03:04:05Z\"}\n\n")
			heard <- struct{}{}
			return err
		})
	})
	now := newClock()
	g, api := newGateway(t, address, func(o *Options) { o.Now = now.Now }, readyAgent("alice", lifecycle.Free)...)
	pod := g.fleet.podOf(Name("alice")).DeepCopy()
	s := &stream{watcher: g.watcher, pod: pod, budget: newBudget(now.Now)}
	if was, err := s.read(t.Context(), true); !was || !errors.Is(err, io.EOF) {
		t.Errorf("a Pod that has its address: %t, %v", was, err)
	}
	// The Pod has gone, and the watch does not know it yet.
	now.advance(confirmEvery)
	if err := api.Tracker().Delete(corev1.SchemeGroupVersion.WithResource("pods"), "agents", pod.Name); err != nil {
		t.Fatal(err)
	}
	g.fleet.forget(pod)
	if was, err := s.read(t.Context(), true); was || !errors.Is(err, errLeft) {
		t.Errorf("whoever has the address of a Pod that has gone: %t, %v", was, err)
	}
	if g.fleet.saidBy(pod).state != "" {
		t.Error("what a stranger says is taken for the agent's word")
	}
}

// A gateway listens to so many agents at once; the next one is listened to when another has gone.
func TestListenedAgents(t *testing.T) {
	asked := make(chan string, 10)
	address := hostileAgent(t, func(conn net.Conn) {
		_ = talk(conn, func(io.Writer) error {
			_, err := conn.Read(make([]byte, 1))
			return err
		})
	})
	objects := append(readyAgent("alice", lifecycle.Free), readyAgent("bob", lifecycle.Free)...)
	g, api := newGateway(t, address, func(o *Options) {
		o.Limits.Listened = 1
		o.Address = func(pod *corev1.Pod, _ int32) string { asked <- pod.Name; return address }
	}, objects...)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); g.watcher.run(ctx) }()
	defer func() { stop(); <-done }()
	first := <-asked
	waitFor(t, "nobody waits to be listened to", func() bool {
		return metric(t, g.options.Metrics.limited.WithLabelValues(limitedListened)) > 0
	})
	if len(asked) > 0 {
		t.Error("two agents are listened to")
	}
	if err := api.CoreV1().Pods("agents").Delete(t.Context(), first, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case second := <-asked:
		if second == first {
			t.Errorf("%s has gone and is listened to", first)
		}
	case <-time.After(30 * time.Second):
		t.Error("the other agent is not listened to")
	}
}

// A reader of events is not told every change of an agent that changes its mind all the time.
func TestEventsAreCoalesced(t *testing.T) {
	now := newClock()
	g, _ := newGateway(t, "127.0.0.1:1", func(o *Options) { o.Now = now.Now }, readyAgent("mallory", lifecycle.Anonymous)...)
	pod := g.fleet.podOf(Name("mallory"))
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan string, 1)
	go func() { answered <- call(ctx, g, "GET", "mallory", "/events").Body.String() }()
	waitFor(t, "there is no stream", func() bool { return len(g.limiter.streams) > 0 })
	for i := range 2000 {
		g.fleet.say(pod, saying{state: []lifecycle.State{lifecycle.Idle, lifecycle.Running}[i%2], since: now.Now()}, nil)
		time.Sleep(50 * time.Microsecond)
	}
	cancel()
	// The clock stands still: the burst, and then one after 250 ms, one 500 ms later, and so on.
	if events := strings.Count(<-answered, "event: "); events < 2 || events > changeBurst+20 {
		t.Errorf("%d events for 2000 changes, want about %d", events, changeBurst)
	}
}
