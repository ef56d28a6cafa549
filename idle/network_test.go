package idle

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/activity"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Addresses of the tests. The Pod's own is where httptest serves.
const (
	stranger = "10.0.0.66:4000"
	gateway  = "10.0.0.1:4000"
	loopback = "127.0.0.1:4000"
)

// key is the gateway's.
var key = ed25519.NewKeyFromSeed(slices.Repeat([]byte{7}, ed25519.SeedSize))

// peer is a network with a clock, and a gateway's signer.
type peer struct {
	*network
	signer *activity.Signer
	log    bytes.Buffer
	now    time.Time
}

func newPeer(t *testing.T, verifier *activity.Verifier) *peer {
	t.Helper()
	p := &peer{signer: activity.NewSigner("replica-1"), now: time.Now()}
	p.signer.SetKeys([]ed25519.PrivateKey{key})
	m := New(testConfig())
	p.network = newNetwork(m, verifier, slog.New(slog.NewTextHandler(&p.log, nil)))
	p.gate.now = func() time.Time { return p.now }
	p.gate.signedAt = p.now
	return p
}

func verifierFor(audience string) *activity.Verifier {
	n := 0
	return activity.NewVerifier(key.Public().(ed25519.PublicKey), audience, func() string { n++; return fmt.Sprint(audience, "-", n) })
}

// request is one of somebody who knows the nonce, if it is to be signed.
func (p *peer) request(from, method, path, body string, signer *activity.Signer, audience string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr = from
	if signer != nil {
		signer.Sign(r.Header, &activity.Request{Method: method, Path: path, Body: []byte(body), Audience: audience, Nonce: p.gate.verifier.Nonce()})
	}
	return r
}

func (p *peer) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}

func (p *peer) expect(t *testing.T, what string, r *http.Request, code int) {
	t.Helper()
	if w := p.serve(r); w.Code != code {
		t.Errorf("%s: %d %s, want %d", what, w.Code, w.Body, code)
	}
}

func TestOnlyTheGatewayKeepsAnAgent(t *testing.T) {
	p := newPeer(t, verifierFor("pod-a"))
	const (
		active = "/v1/activity"
		snooze = "/v1/snooze"
	)
	none := (*activity.Signer)(nil)
	p.expect(t, "a stranger", p.request(stranger, "POST", active, "", none, ""), 401)
	p.expect(t, "a stranger's snooze", p.request(stranger, "POST", snooze, `{"seconds": 1200}`, none, ""), 401)
	if source := p.manager.Status().LastActivity.Source; source != "start" {
		t.Errorf("a stranger was active as %q", source)
	}
	p.expect(t, "the agent itself", p.request(loopback, "POST", active, "", none, ""), 204)
	page := p.request(loopback, "POST", active, "", none, "")
	page.Header.Set("Origin", "http://evil.example")
	p.expect(t, "a page in the agent's browser", page, 401)
	p.expect(t, "the gateway", p.request(gateway, "POST", active, `{"source": "gateway"}`, p.signer, "pod-a"), 204)
	p.expect(t, "the gateway's snooze", p.request(gateway, "POST", snooze, `{"seconds": 1200}`, p.signer, "pod-a"), 200)

	other := activity.NewSigner("replica-2")
	other.SetKeys([]ed25519.PrivateKey{key})
	p.expect(t, "another replica", p.request(gateway, "POST", active, "", other, "pod-a"), 204)
	p.expect(t, "what another agent was sent", p.request(stranger, "POST", active, "", other, "pod-b"), 401)

	sent := p.request(gateway, "POST", active, "", p.signer, "pod-a")
	again := sent.Clone(t.Context())
	p.expect(t, "a request", sent, 204)
	again.Body = http.NoBody
	p.expect(t, "the same again", again, 401)

	forged := activity.NewSigner("stranger")
	forged.SetKeys([]ed25519.PrivateKey{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	p.expect(t, "another key", p.request(stranger, "POST", active, "", forged, "pod-a"), 401)

	for reason, want := range map[string]int{"unsigned": 3, "replayed": 1, "signature": 2, "rate": 0} {
		if got := p.gate.refusals()[reason]; got != want {
			t.Errorf("%d refused as %s, want %d", got, reason, want)
		}
	}
	metrics := p.serve(p.request(stranger, "GET", "/metrics", "", none, "")).Body.String()
	for _, want := range []string{
		`agent_lifecycle_agent_refused_requests_total{reason="unsigned"} 3`, "agent_lifecycle_agent_takes_unsigned_activity 0",
		"agent_lifecycle_agent_event_streams 0", "agent_lifecycle_agent_triggers 0",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %q:\n%s", want, metrics)
		}
	}
}

// A request that was recorded is worth nothing after a restart of the manager; the gateway learns the new nonce.
func TestRestartedManager(t *testing.T) {
	p := newPeer(t, verifierFor("pod"))
	recorded := p.request(gateway, "POST", "/v1/activity", "", p.signer, "pod")
	p.gate.verifier = activity.NewVerifier(key.Public().(ed25519.PublicKey), "pod", func() string { return "fresh" })
	w := p.serve(recorded)
	if w.Code != 401 || w.Header().Get(activity.NonceHeader) != "fresh" {
		t.Errorf("%d with nonce %q", w.Code, w.Header().Get(activity.NonceHeader))
	}
	p.expect(t, "the gateway again", p.request(gateway, "POST", "/v1/activity", "", p.signer, "pod"), 204)
}

// While no gateway signs, as after a downgrade, an agent in use gets word of it in time.
func TestGatewayThatDoesNotSign(t *testing.T) {
	p := newPeer(t, verifierFor("pod"))
	unsigned := func() *http.Request { return p.request(gateway, "POST", "/v1/activity", "", nil, "") }
	p.expect(t, "an old gateway, at first", unsigned(), 401)
	timeout := testConfig().Timeout
	p.now = p.now.Add(min(maxPatience, timeout/patienceShare))
	p.expect(t, "an old gateway, later", unsigned(), 204)
	if got := p.now.Sub(p.gate.signedAt); got >= timeout/2 {
		t.Errorf("it took %s of a timeout of %s", got, timeout)
	}
	wrong := activity.NewSigner("wrong")
	wrong.SetKeys([]ed25519.PrivateKey{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	p.expect(t, "a gateway with another key", p.request(gateway, "POST", "/v1/activity", "", wrong, "pod"), 204)
	if !strings.Contains(p.log.String(), "No gateway signs its requests") {
		t.Errorf("the log says nothing of it: %s", p.log.String())
	}
	replayed := p.request(gateway, "POST", "/v1/activity", "", p.signer, "pod")
	p.expect(t, "a gateway that signs", replayed, 204)
	p.expect(t, "an old one beside it", unsigned(), 401)

	// A signed stream of events is word of the gateway for as long as it stands.
	p.gate.contact(1)
	p.now = p.now.Add(24 * time.Hour)
	p.expect(t, "a stranger beside a signed stream", unsigned(), 401)
	p.gate.contact(-1)
	p.expect(t, "right after its end", unsigned(), 401)
	p.now = p.now.Add(maxPatience)
	p.expect(t, "long after its end", unsigned(), 204)
}

func TestPatienceLeavesTime(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, 15 * time.Minute, 30 * 24 * time.Hour} {
		g := newGate(nil, timeout, time.Now, slog.New(slog.DiscardHandler))
		if g.patience > maxPatience || g.patience > timeout/2 {
			t.Errorf("patience %s for a timeout of %s", g.patience, timeout)
		}
	}
}

// An agent from before there was a key works as before.
func TestWithoutKey(t *testing.T) {
	p := newPeer(t, nil)
	p.expect(t, "an old gateway", p.request(gateway, "POST", "/v1/activity", "", nil, ""), 204)
	r := p.request(gateway, "POST", "/v1/activity", "", nil, "")
	p.signer.Sign(r.Header, &activity.Request{Method: "POST", Path: "/v1/activity", Audience: "pod"})
	p.expect(t, "a new gateway", r, 204)
	if metrics := p.serve(p.request(gateway, "GET", "/metrics", "", nil, "")).Body.String(); !strings.Contains(metrics, "takes_unsigned_activity 1") {
		t.Errorf("the metrics do not say so:\n%s", metrics)
	}
}

// A stranger is turned away cheaply, and keeps the gateway from nothing.
func TestRequestRate(t *testing.T) {
	p := newPeer(t, verifierFor("pod"))
	forged := activity.NewSigner("stranger")
	forged.SetKeys([]ed25519.PrivateKey{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	codes := map[int]int{}
	for range requestBurst {
		for _, r := range []*http.Request{
			p.request(stranger, "POST", "/v1/activity", "", forged, "pod"), p.request(stranger, "GET", "/v1/status", "", nil, ""),
			p.request(stranger, "POST", "/v1/activity", "", nil, ""),
		} {
			codes[p.serve(r).Code]++
		}
	}
	if codes[429] != 2*requestBurst || codes[401]+codes[200] != requestBurst {
		t.Errorf("codes %v, want %d of 429", codes, 2*requestBurst)
	}
	for range 4 * requestBurst {
		p.expect(t, "the gateway", p.request(gateway, "POST", "/v1/activity", "", p.signer, "pod"), 204)
		p.expect(t, "the agent", p.request(loopback, "POST", "/v1/activity", "", nil, ""), 204)
	}
	for i := range 10 * maxAddresses {
		r := p.request(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}), 1).String(), "GET", "/v1/status", "", nil, "")
		p.expect(t, "somebody else", r, 200)
	}
	if got := len(p.gate.rates); got > maxAddresses {
		t.Errorf("%d addresses are remembered, more than %d", got, maxAddresses)
	}
}

// Behind address translation a neighbour has the gateway's address. What it sends keeps the gateway from nothing.
func TestNeighbourWithTheGatewaysAddress(t *testing.T) {
	p := newPeer(t, verifierFor("pod"))
	forged := activity.NewSigner("stranger")
	forged.SetKeys([]ed25519.PrivateKey{ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	for range 2 * requestBurst {
		p.serve(p.request(gateway, "GET", "/v1/status", "", nil, ""))
		p.serve(p.request(gateway, "POST", "/v1/activity", "", forged, "pod"))
	}
	p.expect(t, "the neighbour", p.request(gateway, "POST", "/v1/activity", "", nil, ""), 429)
	p.expect(t, "the gateway", p.request(gateway, "POST", "/v1/activity", "", p.signer, "pod"), 204)
	r := p.request(gateway, "POST", "/v1/activity", "", nil, "")
	p.signer.Sign(r.Header, &activity.Request{Method: "POST", Path: "/v1/activity", Audience: "pod", Nonce: "of-a-life-before"})
	answer := p.serve(r)
	if answer.Code != 401 || answer.Header().Get(activity.NonceHeader) == "" {
		t.Errorf("the gateway, which does not know the nonce yet: %d %v, want 401 and the nonce", answer.Code, answer.Header())
	}
}

func TestIsLocal(t *testing.T) {
	for _, tc := range []struct {
		remote, local string
		want          bool
	}{
		{"127.0.0.1:1", "127.0.0.1:8377", true},
		{"[::1]:1", "[::1]:8377", true},
		{"[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:8377", true},
		{"10.0.0.5:1", "10.0.0.5:8377", true},
		{"[::ffff:10.0.0.5]:1", "10.0.0.5:8377", true},
		{"10.0.0.6:1", "10.0.0.5:8377", false},
		{"[fd00::2]:1", "[fd00::1]:8377", false},
		{"nonsense", "nonsense", false},
		{"127.0.0.6:1", "127.0.0.1:8377", false},
	} {
		r := httptest.NewRequest("POST", "/v1/activity", http.NoBody)
		r.RemoteAddr = tc.remote
		if a, err := net.ResolveTCPAddr("tcp", tc.local); err == nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(a)))
		}
		if got := isLocal(r); got != tc.want {
			t.Errorf("from %s to %s is local: %t", tc.remote, tc.local, got)
		}
	}
}

// farListener makes its connections come from addresses of the test's choice.
type farListener struct {
	net.Listener
	mu   sync.Mutex
	from string
}

func (l *farListener) come(from string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.from = from
}

func (l *farListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return &farConn{c, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(l.from))}, nil
}

type farConn struct {
	net.Conn
	from net.Addr
}

func (c *farConn) RemoteAddr() net.Addr { return c.from }

// TestManyConnections: whoever opens connections and sends nothing takes a bounded part of the agent, and keeps nobody out.
func TestManyConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	far := &farListener{Listener: inner, from: stranger}
	bounded := &boundedListener{far, &slots{max: maxConnections}}
	verifier := verifierFor("pod")
	server := newServer(newNetwork(New(testConfig()), verifier, slog.New(slog.DiscardHandler)))
	server.ReadHeaderTimeout, server.ReadTimeout = 0, 0 // they would end the connections, only later
	go func() { _ = server.Serve(bounded) }()
	t.Cleanup(func() { server.Close() })
	var ended atomic.Int32
	for range 4 * maxConnections {
		c, err := net.Dial("tcp", inner.Addr().String())
		must(t, err)
		t.Cleanup(func() { c.Close() })
		go func() {
			_, _ = c.Read(make([]byte, 1)) // it returns when the server ends the connection
			ended.Add(1)
		}()
	}
	eventually(t, "most connections are ended", func() bool { return ended.Load() >= 3*maxConnections })
	if got := bounded.slots.len(); got > maxConnections {
		t.Errorf("%d connections are held, more than %d", got, maxConnections)
	}
	far.come("10.0.0.2:1")
	response, err := http.Get("http://" + inner.Addr().String() + "/v1/status")
	if err != nil {
		t.Fatalf("somebody else is kept out: %v", err)
	}
	response.Body.Close()
}

// TestSubscribers: streams are bounded, and the gateway always gets one.
func TestSubscribers(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	far := &farListener{Listener: inner, from: stranger}
	verifier := verifierFor("pod")
	n := newNetwork(New(testConfig()), verifier, slog.New(slog.DiscardHandler))
	server := newServer(n)
	go func() { _ = server.Serve(far) }()
	t.Cleanup(func() { server.Close() })
	signer := activity.NewSigner("gateway")
	signer.SetKeys([]ed25519.PrivateKey{key})
	ctx, hangUp := context.WithCancel(t.Context())
	defer hangUp()
	open := func(signed bool) (int, http.Header, io.Reader) {
		request, err := http.NewRequestWithContext(ctx, "GET", "http://"+inner.Addr().String()+"/v1/events", http.NoBody)
		must(t, err)
		if signed {
			signer.Sign(request.Header, &activity.Request{Method: "GET", Path: "/v1/events", Audience: "pod", Nonce: verifier.Nonce()})
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Do(request)
		must(t, err)
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode == http.StatusOK {
			_, err = bufio.NewReader(response.Body).ReadString('\n')
			must(t, err)
		}
		return response.StatusCode, response.Header, response.Body
	}
	var first io.Reader
	for i := range maxSubscribers {
		code, _, stream := open(false)
		if code != http.StatusOK {
			t.Fatalf("stream %d: %d", i, code)
		}
		if first == nil {
			first = stream
		}
	}
	if code, header, _ := open(false); code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("one stream more: %d", code)
	}
	for range 3 {
		if code, _, _ := open(true); code != http.StatusOK {
			t.Fatalf("a replica of the gateway: %d", code)
		}
	}
	if _, err := io.Copy(io.Discard, first); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the stranger's first stream has not ended: %v", err)
	}
	if got := n.subscribers.len(); got != maxSubscribers {
		t.Errorf("%d streams, want %d", got, maxSubscribers)
	}
	streams := func() int {
		n.gate.mu.Lock()
		defer n.gate.mu.Unlock()
		return n.gate.streams
	}
	if got := streams(); got != 3 {
		t.Errorf("%d signed streams, want 3", got)
	}
	hangUp()
	eventually(t, "the streams end", func() bool { return streams() == 0 && n.subscribers.len() == 0 })
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

func TestGatewayVerifier(t *testing.T) {
	public := activity.FormatPublicKey(key.Public().(ed25519.PublicKey))
	for _, tc := range []struct {
		key, audience string
		has           bool
		err           string
	}{
		{"", "", false, ""},
		{public, "uid", true, ""},
		{"nonsense", "uid", false, lifecycle.EnvActivityKey + `: "nonsense" is no public key; accepted`},
		{"", "uid", false, lifecycle.EnvActivityKey},
		{public, "", false, lifecycle.EnvActivityAudience + " is empty; accepted is the Pod's UID"},
	} {
		env := map[string]string{lifecycle.EnvActivityKey: tc.key, lifecycle.EnvActivityAudience: tc.audience}
		v, err := GatewayVerifier(func(name string) string { return env[name] })
		if (v != nil) != tc.has || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%q, %q: %v, %v", tc.key, tc.audience, v, err)
		}
	}
}

// A reason is cut and not refused: the trigger is what counts.
func TestLongReason(t *testing.T) {
	m := New(testConfig())
	must(t, m.AddTrigger("a", strings.Repeat("ü", maxReason)))
	for _, k := range m.Status().KeptAliveBy {
		if len(k.Reason) > maxReason+len("…") {
			t.Errorf("a reason of %d bytes is kept", len(k.Reason))
		}
		if k.Kind == "trigger" && !strings.HasSuffix(k.Reason, "ü…") {
			t.Errorf("the reason ends with %q", k.Reason[len(k.Reason)-8:])
		}
	}
}
