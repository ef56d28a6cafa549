package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationv1client "k8s.io/client-go/kubernetes/typed/authentication/v1"
)

// Authenticator says who calls.
type Authenticator interface {
	// Authenticate returns the name of a token's holder. The error is an ErrToken or ErrCaller where the caller is at fault, any
	// other where nobody could be asked.
	Authenticate(ctx context.Context, token string) (string, error)
}

var (
	// ErrToken is a token that is none, or that is for somebody else.
	ErrToken = errors.New("the token is not valid here")

	// ErrCaller is somebody who may not call the gateway.
	ErrCaller = errors.New("may not call the gateway")
)

// Of what a token says it is true for a while, so that the API server need not be asked with every request. A token that is taken
// back works for as long.
const (
	rememberGood = time.Minute
	rememberBad  = 10 * time.Second

	// maxTokens is how many are remembered.
	maxTokens = 4096
)

// TokenReviews asks the API server who a token's holder is.
type TokenReviews struct {
	client   authenticationv1client.TokenReviewInterface
	audience string
	allowed  []string
	now      func() time.Time
	flights  singleflight.Group

	mu    sync.Mutex
	known map[[sha256.Size]byte]reviewed
}

type reviewed struct {
	name  string
	err   error
	until time.Time
}

// NewTokenReviews returns an Authenticator of tokens that were made for the audience. allowed are the names of those who may call, as
// the API server knows them, such as "system:serviceaccount:NAMESPACE:NAME".
func NewTokenReviews(client authenticationv1client.TokenReviewInterface, audience string, allowed []string, now func() time.Time) *TokenReviews {
	return &TokenReviews{client: client, audience: audience, allowed: allowed, now: now, known: map[[sha256.Size]byte]reviewed{}}
}

// Authenticate implements Authenticator.
func (t *TokenReviews) Authenticate(ctx context.Context, token string) (string, error) {
	key := sha256.Sum256([]byte(token))
	t.mu.Lock()
	r, has := t.known[key]
	t.mu.Unlock()
	if has && t.now().Before(r.until) {
		return r.name, r.err
	}
	answer, err, _ := t.flights.Do(string(key[:]), func() (any, error) {
		// Others wait for the same answer: it must not end with whoever asked first.
		work, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		return t.review(work, key, token)
	})
	if err != nil {
		return "", fmt.Errorf("ask whose token it is: %w", err)
	}
	r = answer.(reviewed)
	return r.name, r.err
}

func (t *TokenReviews) review(ctx context.Context, key [sha256.Size]byte, token string) (reviewed, error) {
	review, err := t.client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{t.audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return reviewed{}, err
	}
	r := reviewed{name: review.Status.User.Username, until: t.now().Add(rememberGood)}
	switch {
	// An API server that does not know audiences leaves them out: its word is not enough.
	case !review.Status.Authenticated, !slices.Contains(review.Status.Audiences, t.audience):
		r = reviewed{err: fmt.Errorf("%w: it must be one for the audience %q", ErrToken, t.audience), until: t.now().Add(rememberBad)}
	case !slices.Contains(t.allowed, r.name):
		r.err, r.until = fmt.Errorf("%s %w", r.name, ErrCaller), t.now().Add(rememberBad)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxTokens {
		for k, known := range t.known {
			if !t.now().Before(known.until) {
				delete(t.known, k)
			}
		}
		if len(t.known) >= maxTokens {
			clear(t.known)
		}
	}
	t.known[key] = r
	return r, nil
}
