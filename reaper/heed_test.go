package reaper

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// countedBreaker says what it is told to, and counts who asks.
type countedBreaker struct {
	mu    sync.Mutex
	says  error
	asked int
}

func (b *countedBreaker) Closed(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	return b.says
}

func (*countedBreaker) Take(context.Context, string) error { return nil }

// However many agents are dead and kept, the breaker is read once, and what opens it is seen by the next who asks a moment later.
func TestHeeded(t *testing.T) {
	now, errOpen := noon, errors.New("open")
	breaker := &countedBreaker{}
	var h heeded
	ask := func(n int, want error, asked int) {
		t.Helper()
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				if err := h.closed(t.Context(), breaker, func() time.Time { return now }); !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
				}
			})
		}
		all.Wait()
		if breaker.asked != asked {
			t.Errorf("the breaker was read %d times, want %d", breaker.asked, asked)
		}
	}
	ask(1000, nil, 1)
	breaker.says = errOpen
	now = now.Add(permissionHolds)
	ask(1000, errOpen, 2)
	breaker.says = nil
	now = now.Add(refusalHolds - 1)
	ask(1000, errOpen, 2)
	now = now.Add(1)
	ask(1000, nil, 3)

	now = now.Add(time.Hour)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	breaker.says = ended.Err()
	if err := h.closed(ended, breaker, func() time.Time { return now }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	breaker.says = nil
	ask(1, nil, 5) // who asks after one whose time was over gets an answer of its own
}
