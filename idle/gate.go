package idle

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/dexorder/agent-lifecycle/activity"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// ErrUnauthorized says that a request from the network is not the gateway's.
var ErrUnauthorized = errors.New("not the gateway's")

// errRate says that an address asks for too much.
var errRate = fmt.Errorf("too many requests from this address; accepted are %d a second", requestRate)

const (
	// maxPatience and patienceShare bound how long unsigned activity is refused while no gateway signs: at most this
	// share of the timeout, so that an agent in use gets word in time.
	maxPatience   = 5 * time.Minute
	patienceShare = 3

	// requestRate and requestBurst bound the requests of one address that the gateway has not signed.
	requestRate  = 10
	requestBurst = 50

	// maxAddresses bounds the memory for the rates of addresses.
	maxAddresses = 256
)

// GatewayVerifier returns what verifies the gateway's signatures by the environment that the webhook gives an agent. It
// is nil where the agent was made without a key. The error names the variable that is wrong, and what would be accepted.
func GatewayVerifier(getenv func(string) string) (*activity.Verifier, error) {
	key, audience := getenv(lifecycle.EnvActivityKey), getenv(lifecycle.EnvActivityAudience)
	if key == "" && audience == "" {
		return nil, nil
	}
	public, err := activity.ParsePublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", lifecycle.EnvActivityKey, err)
	}
	if audience == "" {
		return nil, fmt.Errorf("%s is empty; accepted is the Pod's UID", lifecycle.EnvActivityAudience)
	}
	return activity.NewVerifier(public, audience, rand.Text), nil
}

// gate decides whose requests from the network may keep the agent.
//
// Without a verifier everybody's may, as they always could. With one, requests of the Pod's own processes and those that
// the gateway has signed may. While no gateway signs, unsigned ones may as well: after a downgrade of the gateway, or a
// mistake with its keys, an agent in use must not be stopped. Before a gateway is taken for one that does not sign,
// nothing signed arrives for the length of patience and no signed stream of events stands. The gateway listens to each
// agent that is ready, so a stranger does not bring that about.
type gate struct {
	verifier *activity.Verifier
	patience time.Duration
	now      func() time.Time
	log      *slog.Logger

	mu       sync.Mutex
	signedAt time.Time // the last signed request, or the start
	streams  int       // signed ones that stand
	lenient  bool      // as logged
	rates    map[netip.Addr]*rate.Limiter
	refused  map[string]int // requests by reason
}

func newGate(verifier *activity.Verifier, timeout time.Duration, now func() time.Time, log *slog.Logger) *gate {
	return &gate{
		verifier: verifier, patience: min(maxPatience, timeout/patienceShare), now: now, log: log, signedAt: now(),
		rates: map[netip.Addr]*rate.Limiter{}, refused: map[string]int{},
	}
}

// admit bounds the requests of an address. It answers false for one too many. A request that may be the gateway's is
// always looked at: behind address translation a neighbour has the gateway's address, and would use up its share.
func (g *gate) admit(r *http.Request) bool {
	if isLocal(r) || isSigned(r) || g.charge(r) {
		return true
	}
	g.count("rate")
	return false
}

// charge counts a request for its address. It answers false for one too many.
func (g *gate) charge(r *http.Request) bool { return g.rateOf(remote(r)).AllowN(g.now(), 1) }

// isSigned says whether the request carries a signature where one is looked at.
func isSigned(r *http.Request) bool {
	return r.Header.Get(activity.Header) != "" && (r.URL.Path == pathActivity || r.URL.Path == pathSnooze || r.URL.Path == pathEvents)
}

func (g *gate) rateOf(address netip.Addr) *rate.Limiter {
	g.mu.Lock()
	defer g.mu.Unlock()
	limiter := g.rates[address]
	if limiter == nil {
		if len(g.rates) >= maxAddresses {
			clear(g.rates)
		}
		limiter = rate.NewLimiter(requestRate, requestBurst)
		g.rates[address] = limiter
	}
	return limiter
}

// authenticate says whether the gateway has signed the request. The error is about a signature that there is, or errRate
// where its address shows too many that are none. One with an unknown nonce is told the nonce, however many there are.
func (g *gate) authenticate(r *http.Request) (signed bool, err error) {
	if r.Header.Get(activity.Header) == "" {
		return false, nil
	}
	defer func() {
		if !signed && !isLocal(r) && !g.charge(r) {
			g.count("rate")
			if !errors.Is(err, activity.ErrNonce) {
				err = errRate
			}
		}
	}()
	if g.verifier == nil {
		return false, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return false, fmt.Errorf("body: %w", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := g.verifier.Verify(r.Header, r.Method, r.URL.RequestURI(), body); err != nil {
		return false, err
	}
	if s, ok := r.Context().Value(slotKey{}).(*slot); ok {
		s.sign()
	}
	g.contact(0)
	return true, nil
}

// authorize returns an error that wraps ErrUnauthorized unless the request may keep the agent.
func (g *gate) authorize(r *http.Request) error {
	signed, err := g.authenticate(r)
	switch {
	case signed:
		return nil
	case errors.Is(err, activity.ErrNonce):
		return fmt.Errorf("%w: %w", ErrUnauthorized, err)
	case err != nil && !errors.Is(err, activity.ErrSignature) && !errors.Is(err, activity.ErrReplayed):
		return err // its body cannot be read, or there are too many
	case err == nil && isLocal(r), g.verifier == nil, !errors.Is(err, activity.ErrReplayed) && g.takesUnsigned():
		return nil
	case err == nil:
		err = activity.ErrUnsigned
	}
	g.count(reasonOf(err))
	return fmt.Errorf("%w: %w", ErrUnauthorized, err)
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, activity.ErrUnsigned):
		return "unsigned"
	case errors.Is(err, activity.ErrReplayed):
		return "replayed"
	}
	return "signature"
}

// contact notes that a gateway has signed, and that a signed stream begins (1) or ends (-1).
func (g *gate) contact(streams int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signedAt = g.now()
	g.streams += streams
}

// takesUnsigned says whether unsigned requests from the network may keep the agent.
func (g *gate) takesUnsigned() bool {
	if g.verifier == nil {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	lenient := g.streams == 0 && g.now().Sub(g.signedAt) >= g.patience
	if lenient != g.lenient {
		g.lenient = lenient
		if lenient {
			g.log.Warn("No gateway signs its requests; unsigned activity from the network is taken until one does", "after", g.patience)
		} else {
			g.log.Info("A gateway signs its requests; unsigned activity from the network is refused")
		}
	}
	return lenient
}

func (g *gate) count(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.refused[reason]++
}

// refusals returns how many requests were refused, by reason.
func (g *gate) refusals() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := map[string]int{}
	for _, reason := range []string{"rate", "replayed", "signature", "unsigned"} {
		counts[reason] = g.refused[reason]
	}
	return counts
}

// meshAddress is where Istio's proxy in a Pod sends from what came to the Pod from elsewhere (InboundPassthroughBindIpv4).
var meshAddress = netip.AddrFrom4([4]byte{127, 0, 0, 6})

// isLocal says whether a process of the agent's own Pod asks: by loopback, or by the Pod's own address. A page that a
// browser in the Pod shows is somebody else's program, and browsers say so.
func isLocal(r *http.Request) bool {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		return false
	}
	address := remote(r)
	if address == meshAddress {
		return false
	}
	if address.IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && address.IsValid() && address == addressOf(local)
}

// remote returns the address of the client, which is not valid for one on a Unix socket.
func remote(r *http.Request) netip.Addr {
	parsed, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return parsed.Addr().Unmap().WithZone("")
}

func addressOf(a net.Addr) netip.Addr {
	parsed, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return parsed.Addr().Unmap().WithZone("")
}
