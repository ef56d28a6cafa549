package webhook

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/policy"
)

// testServer is a Server on ports of its own.
type testServer struct {
	admission, health net.Listener
	stop              context.CancelFunc
	done              chan error
}

func startServer(t testing.TB, a *Admission, drainDelay time.Duration) *testServer {
	t.Helper()
	return startServerWith(t, a, func(o *Options) { o.DrainDelay = drainDelay })
}

func startServerWith(t testing.TB, a *Admission, change func(*Options)) *testServer {
	t.Helper()
	certificate := newCertificate(t)
	options := Options{
		Admission: a, Gatherer: noMetrics{},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil },
	}
	change(&options)
	server, err := NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &testServer{admission: listenLocally(t), health: listenLocally(t), stop: cancel, done: make(chan error, 1)}
	go func() { s.done <- server.Run(ctx, s.admission, s.health) }()
	t.Cleanup(cancel)
	return s
}

func (s *testServer) waitStopped(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the server does not stop")
	}
}

func (s *testServer) ready() bool {
	response, err := http.Get("http://" + s.health.Addr().String() + "/readyz")
	if err != nil {
		return false
	}
	defer response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// rollingService dials the first server as long as it is ready and the second from then on, as a Service does.
type rollingService struct{ servers [2]*testServer }

func (s *rollingService) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	server := s.servers[1]
	if s.servers[0].ready() {
		server = s.servers[0]
	}
	return new(net.Dialer).DialContext(ctx, network, server.admission.Addr().String())
}

func newClient(dial func(ctx context.Context, network, address string) (net.Conn, error), h2 bool) *http.Client {
	transport := &http.Transport{
		DialContext:     dial,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // certificates have tests of their own
		Protocols:       new(http.Protocols),
	}
	transport.Protocols.SetHTTP2(h2)
	transport.Protocols.SetHTTP1(!h2)
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// TestRollingRestart stops one of two servers under a constant stream of requests, from clients that share connections,
// come slowly, or have been silent until the very moment that the server closes. No request may be lost.
func TestRollingRestart(t *testing.T) {
	slow := &fakePolicy{review: func(*policy.Request) policy.Verdict {
		time.Sleep(2 * time.Millisecond)
		return policy.Verdict{}
	}}
	a, _ := newTestAdmission(slow)
	service := &rollingService{[2]*testServer{startServer(t, a, 300*time.Millisecond), startServer(t, a, 0)}}
	waitUntil(t, "both servers are ready", func() bool { return service.servers[0].ready() && service.servers[1].ready() })
	body := reviewOf(t, newRequest(t))
	var answered atomic.Int64
	ask := func(client *http.Client) {
		switch ok, err := askOnce(client, "https://webhook/validate", body); {
		case err != nil:
			t.Errorf("a request was lost: %v", err)
		case !ok:
			t.Error("a request was answered with an HTTP error")
		default:
			answered.Add(1)
		}
	}
	stopAsking := make(chan struct{})
	var asking sync.WaitGroup
	for range 4 {
		client := newClient(service.dial, true)
		for range 2 {
			asking.Go(func() {
				for !closed(stopAsking) {
					ask(client)
				}
			})
		}
	}
	// These hold an idle connection each, and use it at some moment around the one at which the server says goodbye.
	stopped := make(chan struct{})
	for i := range 40 {
		client := newClient(service.dial, true)
		ask(client)
		asking.Go(func() {
			<-stopped
			time.Sleep(290*time.Millisecond + time.Duration(i)*time.Millisecond/2)
			ask(client)
		})
	}
	before := answered.Load()
	waitUntil(t, "there is traffic", func() bool { return answered.Load() > before+50 })
	service.servers[0].stop()
	close(stopped)
	service.servers[0].waitStopped(t)
	after := answered.Load()
	waitUntil(t, "the other server has the traffic", func() bool { return answered.Load() > after+50 })
	close(stopAsking)
	asking.Wait()
	t.Logf("%d requests answered", answered.Load())
}

// An idle HTTP/2 connection is said goodbye to, not just closed. On that the safety of a restart rests, and on how
// net/http and x/net/http2 work together.
func TestIdleConnectionIsToldToGo(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	conn := dialSilently(t, s)
	if kind := readFrame(t, conn); kind != 0x4 {
		t.Fatalf("first frame is of type %#x, want SETTINGS", kind)
	}
	s.stop()
	for {
		switch kind := readFrame(t, conn); kind {
		case 0x7:
			s.waitStopped(t)
			return
		case 0x4, 0x8: // SETTINGS acknowledged, WINDOW_UPDATE
		default:
			t.Fatalf("frame of type %#x, want GOAWAY", kind)
		}
	}
}

// dialSilently opens an HTTP/2 connection and asks nothing on it. It is nil when the server takes no more connections.
func dialSilently(t *testing.T, s *testServer) *tls.Conn {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	conn, err := tls.Dial("tcp", s.admission.Addr().String(), config)
	if err != nil {
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(30*time.Second)))
	if got := conn.ConnectionState(); got.NegotiatedProtocol != "h2" || got.Version != tls.VersionTLS13 {
		t.Fatalf("negotiated %q, TLS %x", got.NegotiatedProtocol, got.Version)
	}
	// The client's preface and empty SETTINGS.
	_, err = io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
	must(t, err)
	return conn
}

func readFrame(t *testing.T, r io.Reader) (kind byte) {
	t.Helper()
	var header [9]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		t.Fatalf("the connection ended without GOAWAY: %v", err)
	}
	length := int64(header[0])<<16 | int64(header[1])<<8 | int64(header[2])
	if _, err := io.CopyN(io.Discard, r, length); err != nil {
		t.Fatal(err)
	}
	return header[3]
}

// Connections that are opened while the server is leaving, and never used, do not hold it up.
func TestLateConnectionsDoNotHoldUp(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	readFrame(t, dialSilently(t, s)) // it keeps the server leaving for a second
	s.stop()
	waitUntil(t, "the server is leaving", func() bool { return !s.ready() })
	late := 0
	for dialSilently(t, s) != nil {
		late++
		time.Sleep(100 * time.Millisecond)
	}
	if late < 2 {
		t.Errorf("%d connections came late, which tests nothing", late)
	}
	s.waitStopped(t)
}

// What is under way when the server stops is answered, with everything it looks up still there.
func TestStopWaitsForAnswers(t *testing.T) {
	for _, h2 := range []bool{true, false} {
		arrived, proceed := make(chan struct{}), make(chan struct{})
		a, _ := newTestAdmission(&fakePolicy{needs: policy.Needs{Owner: true}})
		a.Facts = contextFacts(func(ctx context.Context) error {
			close(arrived)
			<-proceed
			return ctx.Err()
		})
		s := startServer(t, a, 0)
		client := newClient(nil, h2)
		answer := make(chan error, 1)
		go func() {
			ok, err := askOnce(client, "https://"+s.admission.Addr().String()+"/validate", reviewOf(t, newRequest(t)))
			if err == nil && !ok {
				err = io.ErrUnexpectedEOF
			}
			answer <- err
		}()
		<-arrived
		s.stop()
		waitUntil(t, "the server is unready", func() bool { return !s.ready() })
		select {
		case err := <-s.done:
			t.Errorf("h2 %v: Run returned before the answer: %v", h2, err)
		default:
		}
		close(proceed)
		if err := <-answer; err != nil {
			t.Errorf("h2 %v: %v", h2, err)
		}
		s.waitStopped(t)
	}
}

// A server that is about to stop holds no self-deletes any more: see TestHold for those that it held.
func TestStopEndsHolds(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	s := startServer(t, a, 0)
	waitUntil(t, "the server is ready", s.ready)
	_, end, ok := a.holds.begin(t.Context())
	if !ok {
		t.Fatal("a server that serves holds nothing")
	}
	end()
	s.stop()
	s.waitStopped(t)
	if _, _, ok := a.holds.begin(t.Context()); ok {
		t.Error("a server that has stopped holds requests")
	}
}

// contextFacts looks at the context of a look-up.
type contextFacts func(context.Context) error

func (f contextFacts) Facts(ctx context.Context, _ *policy.Request, _ policy.Needs, _ bool) (*policy.Facts, error) {
	return &policy.Facts{}, f(ctx)
}

func askOnce(client *http.Client, url string, body []byte) (ok bool, err error) {
	response, err := client.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	return response.StatusCode == http.StatusOK && bytes.Contains(answer, []byte(`"allowed":true`)), err
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func listenLocally(t testing.TB) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func newCertificate(t testing.TB) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
