package webhook

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/internal/connections"
)

// dialTLS connects to a server by HTTP/1.1.
func dialTLS(t *testing.T, address string) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// announce sends the head of a request and the first bytes of its body.
func announce(t *testing.T, conn net.Conn, length int, first string) {
	t.Helper()
	head := "POST /validate?timeout=30s HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
	if _, err := fmt.Fprintf(conn, head, length, first); err != nil {
		t.Fatal(err)
	}
}

// Connections that announce much and send nothing keep nobody out.
func TestSilentBodiesStarveNobody(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	address := s.admission.Addr().String()
	for range 40 {
		announce(t, dialTLS(t, address), DefaultMaxBody-1, "{")
	}
	client := newClient(nil, true)
	for i := range 40 {
		if ok, err := askOnce(client, "https://"+address+"/validate?timeout=5s", reviewOf(t, newRequest(t))); !ok || err != nil {
			t.Fatalf("request %d beside silent ones: %v, %v", i, ok, err)
		}
	}
}

// A body that stalls is answered 408 and its connection ended, whichever the protocol.
func TestStalledBodyTimesOut(t *testing.T) {
	a, registry := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	address := s.admission.Addr().String()
	conn := dialTLS(t, address)
	announce(t, conn, 1000, "{")
	// Without a deadline of the body's own, the server's timeout of 15 s would end it.
	must(t, conn.SetReadDeadline(time.Now().Add(readTimeout*2/3)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout || !response.Close {
		t.Errorf("HTTP/1.1: %v; want 408 and the end of the connection", response)
	}
	stalled, send := io.Pipe()
	defer send.Close()
	request, err := http.NewRequest(http.MethodPost, "https://"+address+"/validate", stalled)
	must(t, err)
	request.Header.Set("Content-Type", "application/json")
	go func() { _, _ = send.Write([]byte("{")) }()
	client := newClient(nil, true)
	client.Timeout = readTimeout * 2 / 3
	response, err = client.Do(request)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("HTTP/2: %v; want 408", response)
	}
	if n := metric(t, registry, `agent_lifecycle_admission_http_errors_total{code="408"}`); n != "2" {
		t.Errorf("%q counted, want 2", n)
	}
}

func TestReadDeadline(t *testing.T) {
	start := time.Unix(100, 0)
	for after, want := range map[time.Duration]time.Duration{
		0: time.Second, 3 * time.Second: 4 * time.Second, 4500 * time.Millisecond: 5 * time.Second, 6 * time.Second: 5 * time.Second,
	} {
		if got := readDeadline(start, start.Add(after)).Sub(start); got != want {
			t.Errorf("after %s: %s, want %s", after, got, want)
		}
	}
}

// A request that is refused unread does not make the server read on and wait for what never comes.
func TestRefusalDoesNotReadOn(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	conn := dialTLS(t, s.admission.Addr().String())
	head := "GET /validate HTTP/1.1\r\nHost: webhook\r\nContent-Length: 1000\r\n\r\n"
	if _, err := io.WriteString(conn, head); err != nil {
		t.Fatal(err)
	}
	// The body never comes. What would read on ends by the server's timeout of 15 s, and this is well before.
	must(t, conn.SetReadDeadline(time.Now().Add(readTimeout*2/3)))
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed || !response.Close {
		t.Errorf("%v; want 405 and the end of the connection", response)
	}
}

// Where there are too many silent connections the oldest is closed, and a new one is served.
func TestNewConnectionIsServed(t *testing.T) {
	certificate := newCertificate(t)
	var closed atomic.Int64
	limit := &connections.Limit{MaxUnanswered: 4, MaxAnswered: 4, Closed: func(string) { closed.Add(1) }}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connections.Answered(r.Context())
			_, _ = io.WriteString(w, "ok")
		}),
		ErrorLog:  log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*certificate}},
	}
	limit.Attach(server)
	listener := listenLocally(t)
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { server.Close() })
	ask := func(client *http.Client) {
		t.Helper()
		response, err := client.Get("https://" + listener.Addr().String())
		must(t, err)
		response.Body.Close()
	}
	client := newClient(nil, true)
	ask(client)
	var silent []net.Conn
	for range 20 {
		conn, err := net.Dial("tcp", listener.Addr().String())
		must(t, err)
		t.Cleanup(func() { conn.Close() })
		silent = append(silent, conn)
	}
	ask(newClient(nil, true)) // a new one, behind all those
	must(t, silent[0].SetReadDeadline(time.Now().Add(time.Minute)))
	if _, err := silent[0].Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout) {
		t.Errorf("the oldest silent connection: %v, want it closed", err)
	}
	ask(client) // the one from before is served still
	if n := closed.Load(); n < 16 {
		t.Errorf("%d silent connections were closed, want 16 of 20", n)
	}
}

// Hostile bodies in parallel stay within a container's memory.
func TestHostileBodiesPeak(t *testing.T) {
	a := newDefaultAdmission(t)
	s := startServer(t, a, 0)
	url := "https://" + s.admission.Addr().String() + "/validate?timeout=30s"
	attacks := [][]byte{
		[]byte(hostile["containers"](9_000)), []byte(hostile["containers"](400_000)), []byte(hostile["env"](9_000)),
		[]byte(hostile["volumes"](9_000)), []byte(hostile["args"](400_000)), []byte(hostile["claim templates"](9_000)),
		[]byte(hostile["labels"](50_000)), []byte("[" + strings.Repeat(`"xxxxxxxx",`, 700_000) + "]"),
	}
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	before := heapInUse()
	stop, peak := make(chan struct{}), make(chan int64, 1)
	go func() {
		most := int64(0)
		for !closed(stop) {
			metrics.Read(sample)
			most = max(most, int64(sample[0].Value.Uint64()))
			time.Sleep(time.Millisecond)
		}
		peak <- most
	}()
	var senders sync.WaitGroup
	for i := range 6 {
		senders.Go(func() {
			client := newClient(nil, i%2 == 0)
			for n := range 2 * len(attacks) {
				response, err := client.Post(url, "application/json", bytes.NewReader(attacks[(i+n)%len(attacks)]))
				if err == nil {
					_, _ = io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
			}
		})
	}
	senders.Wait()
	close(stop)
	used := <-peak - before
	t.Logf("%d MiB at most", used>>20)
	if most := int64(160 << 20); used > most {
		t.Errorf("%d bytes of heap in use at most, want %d or less", used, most)
	}
	if ok, err := askOnce(newClient(nil, true), url, reviewOf(t, newRequest(t))); !ok || err != nil {
		t.Errorf("an ordinary request afterwards: %v, %v", ok, err)
	}
}
