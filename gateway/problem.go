package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

var (
	// errRequest is a request that is not understood.
	errRequest = errors.New("not understood")

	// errTooLarge is a body over a limit.
	errTooLarge = errors.New("the body is too large")
)

// checkLength refuses a body by what the request says of its length, before anybody has read a byte of it.
func checkLength(r *http.Request, longest int64) error {
	if r.ContentLength > longest {
		return fmt.Errorf("%w: Content-Length is %d; accepted are up to %d bytes", errTooLarge, r.ContentLength, longest)
	}
	return nil
}

// tooLarge returns the error for a body that turned out too large while it was read; nil for another error.
func tooLarge(err error) error {
	if over := (*http.MaxBytesError)(nil); errors.As(err, &over) {
		return fmt.Errorf("%w: accepted are up to %d bytes", errTooLarge, over.Limit)
	}
	return nil
}

// problem is an error as RFC 9457 has it.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`

	// Code is for programs, and stays.
	Code string `json:"code"`
}

// problems lists what callers are told of errors, the first that fits.
var problems = []struct {
	is     func(error) bool
	status int
	code   string
}{
	{is(ErrToken), http.StatusUnauthorized, "token"},
	{is(ErrCaller), http.StatusForbidden, "caller"},
	{is(errTooLarge), http.StatusRequestEntityTooLarge, "too-large"},
	{is(errProtocol), http.StatusUnsupportedMediaType, "protocol"},
	{is(errRequest), http.StatusBadRequest, "request"},
	{is(errNoAgent), http.StatusNotFound, "no-agent"},
	{is(errForeign), http.StatusConflict, "name-taken"},
	{is(errTier), http.StatusConflict, "user-type"},
	{is(errAsleep), http.StatusConflict, "asleep"},
	{is(errLeft), http.StatusConflict, "asleep"},
	{is(errScaledToZero), http.StatusConflict, "scaled-to-zero"},
	{is(errStopping), http.StatusServiceUnavailable, "stopping"},
	{isAway, http.StatusServiceUnavailable, "unavailable"},
	{is(errLimited), http.StatusTooManyRequests, "limit"},
	{is(ErrBusy), http.StatusTooManyRequests, "limit"},
	{is(errTime), http.StatusGatewayTimeout, "not-ready"},
	{is(errSent), http.StatusBadGateway, "agent-failed"},
	{is(errManager), http.StatusBadGateway, "manager"},
	{isJudged, http.StatusUnprocessableEntity, "policy"},
	{apierrors.IsInvalid, http.StatusUnprocessableEntity, "invalid"},
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

// isJudged says whether the policy has refused what was asked for.
func isJudged(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return false
	}
	return slices.ContainsFunc(status.Status().Details.Causes, func(c metav1.StatusCause) bool { return c.Type == lifecycle.CauseJudged })
}

// fail answers with what is wrong. What is not the caller's doing is logged, and not shown.
func (g *Gateway) fail(w http.ResponseWriter, r *http.Request, err error) {
	p := problem{Status: http.StatusServiceUnavailable, Code: "unavailable", Detail: "the gateway cannot do it at the moment"}
	for _, known := range problems {
		if known.is(err) {
			p.Status, p.Code, p.Detail = known.status, known.code, err.Error()
			break
		}
	}
	cause := err
	if away := (*awayError)(nil); errors.As(err, &away) {
		cause = away.cause
	}
	switch {
	case p.Code != "unavailable":
	case errors.Is(err, context.Canceled) && r.Context().Err() != nil: // nobody hears it
	default:
		g.options.Logger.Error("A request failed", "method", r.Method, "path", r.URL.Path, "error", err, "cause", cause)
	}
	if errors.Is(err, errStopping) || errors.Is(err, errTooLarge) {
		w.Header().Set("Connection", "close") // no request more comes on it, and no body is read
	}
	p.write(w)
}

func (p problem) write(w http.ResponseWriter) {
	p.Title = http.StatusText(p.Status)
	if (p.Status == http.StatusServiceUnavailable || p.Status == http.StatusTooManyRequests) && w.Header().Get("Retry-After") == "" {
		w.Header().Set("Retry-After", "1")
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // who has hung up cannot be told
}
