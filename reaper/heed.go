package reaper

import (
	"context"
	"sync"
	"time"
)

// How long what the circuit breaker says holds for all who ask. A refusal holds for as long as those wait who were refused. A permission
// holds for a moment only: what opens the breaker then must not be overlooked for long.
const (
	refusalHolds    = firstPause
	permissionHolds = time.Second
)

// heeded remembers what the circuit breaker said, so that a fleet of agents that are dead and kept reads it once and not one by one.
type heeded struct {
	mu    sync.Mutex
	said  error
	until time.Time
}

// closed returns nil if the breaker was closed a moment ago. Those who ask at the same time wait for one answer.
func (h *heeded) closed(ctx context.Context, breaker Breaker, now func() time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now().Before(h.until) {
		return h.said
	}
	err := breaker.Closed(ctx)
	if ctx.Err() != nil {
		return err // which says nothing of the breaker
	}
	h.said, h.until = err, now().Add(permissionHolds)
	if err != nil {
		h.until = now().Add(refusalHolds)
	}
	return err
}
