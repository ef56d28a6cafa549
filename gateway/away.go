package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// awayError says that the API server could not do something at the moment. Its text is for callers: what the cause says, internal
// addresses included, is for the log alone.
type awayError struct {
	// what could not be done.
	what  string
	cause error
}

// Error implements error.
func (e *awayError) Error() string {
	var status apierrors.APIStatus
	if errors.As(e.cause, &status) {
		return fmt.Sprintf("%s: the cluster's API server answers with %d %s", e.what, status.Status().Code, status.Status().Reason)
	}
	return e.what + ": the cluster's API server does not answer"
}

// Unwrap is for errors.Is and errors.As.
func (e *awayError) Unwrap() error { return e.cause }

// isAway says whether an error is an awayError.
func isAway(err error) bool { return errors.As(err, new(*awayError)) }

// isTransient says whether the same call to the API server may succeed a while later: it does not answer, has too much to do, or
// something that it needs, such as the server that judges, does not answer it.
func isTransient(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return (code >= http.StatusInternalServerError || code == http.StatusTooManyRequests) && !isJudged(err)
	}
	return errors.As(err, new(*url.Error))
}
