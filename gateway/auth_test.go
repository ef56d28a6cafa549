package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

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

func TestTokenReviews(t *testing.T) {
	now := time.Unix(0, 0)
	r := &reviews{status: authenticated("frontend", "here")}
	auth := NewTokenReviews(r, "here", []string{"frontend"}, func() time.Time { return now })
	expect := func(name string, is error, asked int) {
		t.Helper()
		got, err := auth.Authenticate(t.Context(), "token")
		if !errors.Is(err, is) || err == nil && got != name || r.asked != asked {
			t.Errorf("%q, %v after %d questions; want %q, %v after %d", got, err, r.asked, name, is, asked)
		}
	}
	expect("frontend", nil, 1)
	expect("frontend", nil, 1)
	now = now.Add(rememberGood)
	r.status = authenticated("stranger", "here")
	expect("", ErrCaller, 2)
	now = now.Add(rememberBad)
	r.status = authenticated("frontend") // an API server that knows no audiences
	expect("", ErrToken, 3)
	expect("", ErrToken, 3)
	now = now.Add(rememberBad)
	// That nobody could be asked is remembered by nobody, and is not the caller's fault.
	r.err = errors.New("away")
	for i := range 2 {
		if _, err := auth.Authenticate(t.Context(), "token"); err == nil || errors.Is(err, ErrToken) || errors.Is(err, ErrCaller) || r.asked != 4+i {
			t.Errorf("%v after %d questions", err, r.asked)
		}
	}
	r.err, r.status = nil, authenticated("frontend", "here")
	for i := range maxTokens + 10 {
		if _, err := auth.Authenticate(t.Context(), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(auth.known) > maxTokens {
		t.Errorf("%d tokens are remembered", len(auth.known))
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
