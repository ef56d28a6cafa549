package gateway

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reviews answers in the API server's place; integration/gateway_test.go has the real one.
type reviews struct {
	mu     sync.Mutex
	asked  int
	status authenticationv1.TokenReviewStatus
	err    error
}

func (r *reviews) Create(_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	review.Status = r.status
	return review, r.err
}

func authenticated(name string, audiences ...string) authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: name}, Audiences: audiences}
}

// jwt returns an unsigned token with these claims, different for each id.
func jwt(t *testing.T, id int, claims map[string]any) string {
	t.Helper()
	claims["jti"] = id
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return "e30." + base64.RawURLEncoding.EncodeToString(payload) + ".c2ln"
}

// tokenFor returns a token that may be a good one at the time.
func tokenFor(t *testing.T, id int, at time.Time) string {
	t.Helper()
	return jwt(t, id, map[string]any{"aud": []string{"here"}, "exp": at.Add(24 * time.Hour).Unix()})
}

var callerAddress = netip.MustParseAddr("198.51.100.7")

func newReviews(r *reviews, now *clock) *TokenReviews {
	return NewTokenReviews(r, TokenReviewOptions{Audience: "here", Allowed: []string{"frontend"}, Now: now.Now})
}

func TestTokenReviews(t *testing.T) {
	now := newClock()
	r := &reviews{status: authenticated("frontend", "here")}
	auth, token := newReviews(r, now), tokenFor(t, 0, now.Now())
	expect := func(name string, is error, asked int) {
		t.Helper()
		got, err := auth.Authenticate(t.Context(), token, callerAddress)
		if !errors.Is(err, is) || err == nil && got != name || r.asked != asked {
			t.Errorf("%q, %v after %d questions; want %q, %v after %d", got, err, r.asked, name, is, asked)
		}
	}
	expect("frontend", nil, 1)
	expect("frontend", nil, 1)
	now.advance(rememberGood)
	r.status = authenticated("stranger", "here")
	expect("", ErrCaller, 2)
	now.advance(rememberBad)
	r.status = authenticated("frontend") // an API server that knows no audiences
	expect("", ErrToken, 3)
	expect("", ErrToken, 3)
	now.advance(rememberBad)
	// That nobody could be asked is remembered by nobody, and is not the caller's fault.
	r.err = errors.New("away")
	for i := range 2 {
		if _, err := auth.Authenticate(t.Context(), token, callerAddress); err == nil || errors.Is(err, ErrToken) || errors.Is(err, ErrCaller) || r.asked != 4+i {
			t.Errorf("%v after %d questions", err, r.asked)
		}
	}
}

// What cannot be a token for the gateway is refused without a question; unless the gateway is told that there are such tokens.
func TestMadeUpTokens(t *testing.T) {
	now := newClock()
	r := &reviews{status: authenticated("frontend", "here")}
	at := now.Now()
	far := at.Add(time.Hour).Unix()
	for name, token := range map[string]string{
		"nonsense":           "nonsense",
		"three parts":        "a.b.c",
		"another audience":   jwt(t, 0, map[string]any{"aud": []string{"there"}, "exp": far}),
		"no audience":        jwt(t, 0, map[string]any{"exp": far}),
		"audience, a number": jwt(t, 0, map[string]any{"aud": 1, "exp": far}),
		"no expiry":          jwt(t, 0, map[string]any{"aud": "here"}),
		"expired":            jwt(t, 0, map[string]any{"aud": "here", "exp": at.Add(-claimsLeeway - time.Minute).Unix()}),
		"no signature":       strings.TrimSuffix(tokenFor(t, 0, at), "c2ln"),
		"too long":           tokenFor(t, 0, at) + strings.Repeat("x", maxToken),
	} {
		if _, err := newReviews(r, now).Authenticate(t.Context(), token, callerAddress); !errors.Is(err, ErrToken) || r.asked != 0 {
			t.Errorf("%s: %v after %d questions", name, err, r.asked)
		}
	}
	for name, token := range map[string]string{
		"one audience":         jwt(t, 0, map[string]any{"aud": "here", "exp": far}),
		"several audiences":    jwt(t, 0, map[string]any{"aud": []string{"there", "here"}, "exp": far}),
		"a clock that differs": jwt(t, 0, map[string]any{"aud": "here", "exp": at.Add(-time.Minute).Unix()}),
	} {
		r.asked = 0
		if _, err := newReviews(r, now).Authenticate(t.Context(), token, callerAddress); err != nil || r.asked != 1 {
			t.Errorf("%s: %v after %d questions", name, err, r.asked)
		}
	}
	r.asked = 0
	opaque := NewTokenReviews(r, TokenReviewOptions{Audience: "here", Allowed: []string{"frontend"}, Opaque: true, Now: now.Now})
	if _, err := opaque.Authenticate(t.Context(), "nonsense", callerAddress); err != nil || r.asked != 1 {
		t.Errorf("an opaque token: %v after %d questions", err, r.asked)
	}
}

// A stranger who makes tokens up that look like good ones is asked about so often and no more; meanwhile a caller who was known is served,
// even when its time is over, and so is a new one from elsewhere.
func TestTokenFlood(t *testing.T) {
	now := newClock()
	r := &reviews{status: authenticated("frontend", "here")}
	auth, known := newReviews(r, now), tokenFor(t, -1, now.Now())
	if _, err := auth.Authenticate(t.Context(), known, callerAddress); err != nil {
		t.Fatal(err)
	}
	r.status, r.asked = authenticationv1.TokenReviewStatus{}, 0
	flood := func(tokens int, source netip.Addr, want int) {
		t.Helper()
		before, busy := r.asked, 0
		for i := range tokens {
			_, err := auth.Authenticate(t.Context(), tokenFor(t, i, now.Now()), source)
			if errors.Is(err, ErrBusy) {
				busy++
			} else if !errors.Is(err, ErrToken) {
				t.Fatal(err)
			}
		}
		if asked := r.asked - before; asked != want || busy != tokens-want {
			t.Errorf("%s: %d questions, %d refused for now; want %d questions", source, asked, busy, want)
		}
	}
	mallory := netip.MustParseAddr("203.0.113.1")
	flood(maxTokens+100, mallory, unknownTokensFromSource.Burst)
	now.advance(time.Minute)
	r.status = authenticated("frontend", "here")
	for name, token := range map[string]string{"one that was known": known, "a new one": tokenFor(t, -2, now.Now())} {
		if _, err := auth.Authenticate(t.Context(), token, callerAddress); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// From many addresses: the bucket for all.
	r.status = authenticationv1.TokenReviewStatus{}
	now.advance(time.Minute)
	before := r.asked
	for i := range 100 {
		source := netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})
		for j := range 20 {
			_, _ = auth.Authenticate(t.Context(), tokenFor(t, 1000*i+j, now.Now()), source)
		}
	}
	if asked := r.asked - before; asked != unknownTokens.Burst {
		t.Errorf("%d questions about tokens from 100 addresses, want %d", asked, unknownTokens.Burst)
	}
	r.status = authenticated("frontend", "here")
	if _, err := auth.Authenticate(t.Context(), known, callerAddress); err != nil {
		t.Errorf("one that was known: %v", err)
	}
	// An address of IPv6 is as good as any other of its network.
	now.advance(time.Hour)
	r.status = authenticationv1.TokenReviewStatus{}
	flood(unknownTokensFromSource.Burst, netip.MustParseAddr("2001:db8::1"), unknownTokensFromSource.Burst)
	for i := range 10 {
		if _, err := auth.Authenticate(t.Context(), tokenFor(t, 5000+i, now.Now()), netip.MustParseAddr("2001:db8::2")); !errors.Is(err, ErrBusy) {
			t.Errorf("from a neighbour's address: %v", err)
		}
	}
}

// However many bad tokens are shown, no good one is forgotten for them, and neither takes memory without end.
func TestTokensRemembered(t *testing.T) {
	now := newClock()
	r := &reviews{status: authenticated("frontend", "here")}
	auth, known := newReviews(r, now), tokenFor(t, -1, now.Now())
	if _, err := auth.Authenticate(t.Context(), known, callerAddress); err != nil {
		t.Fatal(err)
	}
	r.status = authenticationv1.TokenReviewStatus{}
	for i := range maxTokens + 10 {
		now.advance(time.Millisecond)
		source := netip.AddrFrom4([4]byte{203, 0, byte(i >> 8), byte(i)})
		auth.unknown.SetBurstAt(now.Now(), maxTokens)
		auth.unknown.SetLimitAt(now.Now(), rate.Inf)
		if _, err := auth.Authenticate(t.Context(), tokenFor(t, i, now.Now()), source); !errors.Is(err, ErrToken) {
			t.Fatal(err)
		}
	}
	asked := r.asked
	if _, err := auth.Authenticate(t.Context(), known, callerAddress); err != nil || r.asked != asked {
		t.Errorf("the good one: %v after %d questions more", err, r.asked-asked)
	}
	if auth.bad.Len() != maxTokens || auth.good.Len() != 1 || auth.sources.Len() > maxSources {
		t.Errorf("%d bad ones, %d good ones and %d sources are remembered", auth.bad.Len(), auth.good.Len(), auth.sources.Len())
	}
}

func TestFromLoopback(t *testing.T) {
	for _, tt := range []struct {
		address, forwarded string
		want               bool
	}{
		{"127.0.0.1:1", "", true}, {"[::1]:1", "", true}, {"[::ffff:127.0.0.1]:1", "", true},
		{"192.0.2.1:1", "", false}, {"127.0.0.1:1", "192.0.2.1", false}, {"nonsense", "", false},
	} {
		r := &http.Request{RemoteAddr: tt.address, Header: http.Header{}}
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := fromLoopback(r); got != tt.want {
			t.Errorf("%+v: %t", tt, got)
		}
	}
}
