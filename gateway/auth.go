package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationv1client "k8s.io/client-go/kubernetes/typed/authentication/v1"
	"k8s.io/utils/lru"
)

// Authenticator says who calls.
type Authenticator interface {
	// Authenticate returns the name of a token's holder. source is the address that the token came from. The error is an ErrToken or
	// ErrCaller where the caller is at fault, an ErrBusy where too many tokens are being asked about, any other where nobody could be
	// asked.
	Authenticate(ctx context.Context, token string, source netip.Addr) (string, error)
}

var (
	// ErrToken is a token that is none, or that is for somebody else.
	ErrToken = errors.New("the token is not valid here")

	// ErrCaller is somebody who may not call the gateway.
	ErrCaller = errors.New("may not call the gateway")

	// ErrBusy is a token that was not asked about, since too many others are. It may be a good one: the caller should try again.
	ErrBusy = errors.New("too many unknown tokens are being shown; try again")
)

// Of what a token says it is true for a while, so that the API server need not be asked with every request. A token that is taken
// back works for as long.
const (
	rememberGood = time.Minute
	rememberBad  = 10 * time.Second

	// maxTokens is how many good ones are remembered, and how many bad ones. They are kept apart: however many bad ones a stranger
	// shows, no good one is forgotten for them.
	maxTokens = 4096
)

// Questions about tokens that were never seen to be good. Those from one address take from a bucket of their own first, so that
// a stranger who makes tokens up does not use up the one for all.
var (
	unknownTokens           = Rate{PerSecond: 50, Burst: 200}
	unknownTokensFromSource = Rate{PerSecond: 10, Burst: 50}
)

// maxSources is how many addresses have a bucket of their own; beyond that, the one that showed no unknown token for longest loses its.
const maxSources = 4096

// TokenReviewOptions say whose tokens are accepted.
type TokenReviewOptions struct {
	// Audience is who tokens must have been made for.
	Audience string

	// Allowed are the names of those who may call, as the API server knows them, such as "system:serviceaccount:NAMESPACE:NAME".
	Allowed []string

	// Opaque says that the API server is asked about tokens too that are no JWT for the Audience, such as an authentication webhook
	// or an OIDC issuer gives out. Without it they are refused at no cost.
	Opaque bool

	Now func() time.Time
}

// TokenReviews asks the API server who a token's holder is. It is safe for concurrent use.
type TokenReviews struct {
	client  authenticationv1client.TokenReviewInterface
	options TokenReviewOptions
	flights singleflight.Group

	// good and bad are bounded and drop what was used least lately: reviewed, by a token's hash. A good one stays when its time
	// is over, since a token that was good once is asked about again whatever others show.
	good, bad *lru.Cache

	unknown *rate.Limiter

	mu      sync.Mutex
	sources *lru.Cache // *rate.Limiter by netip.Prefix
}

// reviewed is what is known of a token.
type reviewed struct {
	name  string
	err   error
	until time.Time
}

// NewTokenReviews returns an Authenticator of tokens.
func NewTokenReviews(client authenticationv1client.TokenReviewInterface, options TokenReviewOptions) *TokenReviews {
	return &TokenReviews{
		client: client, options: options, good: lru.New(maxTokens), bad: lru.New(maxTokens), sources: lru.New(maxSources),
		unknown: newBucket(unknownTokens),
	}
}

func newBucket(r Rate) *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst) }

// Authenticate implements Authenticator.
func (t *TokenReviews) Authenticate(ctx context.Context, token string, source netip.Addr) (string, error) {
	now := t.options.Now()
	if err := checkClaims(token, t.options.Audience, now); err != nil && !t.options.Opaque {
		return "", err
	}
	key := sha256.Sum256([]byte(token))
	r, wasGood := recallToken(t.good, key)
	if wasGood && now.Before(r.until) {
		return r.name, nil
	}
	if r, has := recallToken(t.bad, key); has && now.Before(r.until) {
		return "", r.err
	}
	answer, err, _ := t.flights.Do(string(key[:]), func() (any, error) {
		if !wasGood && !t.mayAsk(source) {
			return reviewed{err: ErrBusy}, nil
		}
		// Others wait for the same answer: it must not end with whoever asked first.
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return t.review(work, key, token)
	})
	if err != nil {
		return "", &awayError{"nobody can be asked whose token it is", err}
	}
	r = answer.(reviewed)
	return r.name, r.err
}

// recallToken returns what is remembered of a token.
func recallToken(tokens *lru.Cache, key [sha256.Size]byte) (reviewed, bool) {
	if v, has := tokens.Get(key); has {
		return v.(reviewed), true
	}
	return reviewed{}, false
}

// mayAsk takes one question about an unknown token, if there is one left for its source and for all.
func (t *TokenReviews) mayAsk(source netip.Addr) bool {
	now, network := t.options.Now(), networkOf(source)
	t.mu.Lock()
	defer t.mu.Unlock()
	bucket := newBucket(unknownTokensFromSource)
	if known, has := t.sources.Get(network); has {
		bucket = known.(*rate.Limiter)
	} else {
		t.sources.Add(network, bucket)
	}
	return bucket.AllowN(now, 1) && t.unknown.AllowN(now, 1)
}

// networkOf returns what belongs to one caller, as far as an address tells: the address itself, or of IPv6 the /64.
func networkOf(source netip.Addr) netip.Prefix {
	source = source.Unmap().WithZone("")
	bits := 64
	if source.Is4() {
		bits = 32
	}
	network, err := source.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not an address: all of these share one bucket
	}
	return network
}

func (t *TokenReviews) review(ctx context.Context, key [sha256.Size]byte, token string) (reviewed, error) {
	review, err := t.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{t.options.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return reviewed{}, err
	}
	now := t.options.Now()
	r := reviewed{name: review.Status.User.Username, until: now.Add(rememberGood)}
	switch {
	// An API server that does not know audiences leaves them out: its word is not enough.
	case !review.Status.Authenticated, !slices.Contains(review.Status.Audiences, t.options.Audience):
		r = reviewed{err: fmt.Errorf("%w: it must be one for the audience %q", ErrToken, t.options.Audience), until: now.Add(rememberBad)}
	case !slices.Contains(t.options.Allowed, r.name):
		r.err, r.until = fmt.Errorf("%s %w", r.name, ErrCaller), now.Add(rememberBad)
	}
	if r.err != nil {
		t.good.Remove(key)
		t.bad.Add(key, r)
	} else {
		t.bad.Remove(key)
		t.good.Add(key, r)
	}
	return r, nil
}
