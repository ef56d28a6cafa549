package reaper

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/breaker"
)

// HeldError says that something was not deleted because the circuit breaker is open, or could not be read.
type HeldError struct{ Err error }

// Error implements error.
func (e *HeldError) Error() string { return e.Err.Error() }

// Open says whether the breaker is open; if not, it could not be read, which an operator should look at.
func (e *HeldError) Open() bool {
	var open *breaker.OpenError
	return errors.As(e.Err, &open)
}

// Unwrap returns what the breaker said.
func (e *HeldError) Unwrap() error { return e.Err }

// GuardDeletes has the breaker asked before each request of the config's clients by which something is deleted: a
// DELETE, and a patch of a volume, which may give it back the reclaim policy by which its storage goes. While the
// breaker is open or cannot be read, such a request is not sent, and its error is a *HeldError. It is done where
// requests are sent, so that no code that deletes can forget it.
func GuardDeletes(config *rest.Config, asked Breaker) {
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return guardedTransport{next, asked} })
}

type guardedTransport struct {
	next  http.RoundTripper
	asked Breaker
}

// RoundTrip implements http.RoundTripper.
func (g guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if mayDelete(r) && r.Context().Value(tokenTaken{}) == nil {
		if err := g.asked.Closed(r.Context()); err != nil {
			if r.Body != nil {
				_ = r.Body.Close()
			}
			return nil, &HeldError{err}
		}
	}
	return g.next.RoundTrip(r)
}

func mayDelete(r *http.Request) bool {
	return r.Method == http.MethodDelete || r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/persistentvolumes/")
}

// tokenTaken marks the context of a deletion for which the breaker has just given a token: the token that was the
// last one must still do.
type tokenTaken struct{}

func withToken(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenTaken{}, true)
}

// closed returns nil if the breaker is closed, and a *HeldError if it is open or cannot be read.
func (w *worker) closed(ctx context.Context) error {
	if err := w.Breaker.Closed(ctx); err != nil {
		return &HeldError{err}
	}
	return nil
}

// heldBy returns the breaker's word if that is why err came about; nil if it is not.
func heldBy(err error) *HeldError {
	var held *HeldError
	if errors.As(err, &held) {
		return held
	}
	return nil
}

// isOpen says whether err came about because the breaker is open, which the breaker itself has logged.
func isOpen(err error) bool {
	held := heldBy(err)
	return held != nil && held.Open()
}
