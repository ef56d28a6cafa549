package fleet

import (
	"context"
	"errors"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
)

// backoff is about half a minute in all: what takes longer to pass is for people.
var backoff = wait.Backoff{Duration: time.Second, Factor: 2, Steps: 6}

// patiently repeats what may succeed in a moment, and returns the last error.
func patiently(ctx context.Context, do func(context.Context) error) error {
	var last error
	err := wait.ExponentialBackoffWithContext(ctx, backoff, func(ctx context.Context) (bool, error) {
		last = do(ctx)
		if last != nil && !passes(last) {
			return false, last
		}
		return last == nil, nil
	})
	if last != nil {
		return last
	}
	return err
}

// passes says whether an error is of a moment: the API server, etcd or a webhook does not answer, or has too much to do.
func passes(err error) bool {
	return apierrors.IsInternalError(err) || apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsHTTP2ConnectionLost(err) ||
		utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err)
}

// isRefusal says whether somebody in the cluster does not want the change: a rule, another webhook or an admission policy, whatever code
// they give. What speaks of the caller or of the moment is none.
func isRefusal(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || passes(err) {
		return false
	}
	switch code := status.Status().Code; code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusConflict, http.StatusGone:
		return false
	default:
		return code >= http.StatusBadRequest && code < http.StatusInternalServerError
	}
}
