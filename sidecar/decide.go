package sidecar

import (
	"math/rand/v2"
	"net/http"
	"time"
)

// next is what follows from a reply.
type next int

const (
	// done: the Deployment goes, or is gone.
	done next = iota

	// again: nothing was decided; ask again for as long as the Pod lives.
	again

	// unproven: the server waits for the kubelet's word, or for something else that is bound to come, such as the rights that
	// an API server that has just started does not know of yet. Ask again, for a while.
	unproven

	// refused: not this time. The next exit may be another matter.
	refused
)

// decide says what follows from a reply. The server judges: nothing but its plain refusal is an end.
func decide(r reply) next {
	switch {
	case r.code >= 200 && r.code < 300, r.code == http.StatusNotFound:
		return done
	case r.code == http.StatusConflict, r.code == http.StatusForbidden && !r.judged:
		return unproven
	case r.code == http.StatusForbidden, r.code == http.StatusBadRequest, r.code == http.StatusMethodNotAllowed,
		r.code == http.StatusUnprocessableEntity:
		return refused
	}
	return again // 401: the token may have been renewed; 429, 5xx, and no answer at all
}

// backoff is how long to wait before the attempt that follows attempt, which counts from 1: twice as long each time, with
// jitter so that agents that ended together do not ask together, and not less than the server asked for.
func backoff(attempt int, r reply, random func() float64) time.Duration {
	pause := lastBackoff
	if shift := attempt - 1; shift < 6 {
		pause = min(firstBackoff<<shift, lastBackoff)
	}
	pause = pause/2 + time.Duration(random()*float64(pause))
	if r.code == http.StatusTooManyRequests || r.code == http.StatusServiceUnavailable {
		pause = max(pause, r.retryAfter+time.Duration(random()*float64(r.retryAfter)/2))
	}
	return pause
}

func jitter() float64 { return rand.Float64() } //nolint:gosec // It spreads requests.
