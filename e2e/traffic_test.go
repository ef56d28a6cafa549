//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// trafficClients send one request after the other each, so that some are under way at every moment.
const trafficClients = 4

// traffic creates agents all the time, in dry runs, and notes what fails.
type traffic struct {
	stop     func()
	requests atomic.Int64

	mu       sync.Mutex
	failures []error
}

func startTraffic(t *testing.T) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	running := &traffic{}
	var clients sync.WaitGroup
	for range trafficClients {
		clients.Go(func() {
			for ctx.Err() == nil {
				err := tryAgent(ctx)
				if ctx.Err() != nil {
					return // cut off by the end of the test
				}
				running.requests.Add(1)
				if err != nil {
					running.mu.Lock()
					running.failures = append(running.failures, err)
					running.mu.Unlock()
				}
			}
		})
	}
	running.stop = func() { cancel(); clients.Wait() }
	t.Cleanup(running.stop)
	return running
}

// goOn waits for more requests, so that what has just changed shows in some.
func (r *traffic) goOn(t *testing.T, more int64) {
	t.Helper()
	enough := r.requests.Load() + more
	eventually(t, clusterTimeout, func(context.Context) error {
		if n := r.requests.Load(); n < enough {
			return fmt.Errorf("%d requests were answered, want %d", n, enough)
		}
		return nil
	})
}

// check ends the traffic and fails the test if a request was lost.
func (r *traffic) check(t *testing.T) {
	t.Helper()
	r.stop()
	t.Logf("%d requests, %d failures", r.requests.Load(), len(r.failures))
	if r.requests.Load() == 0 {
		t.Error("not one request was answered")
	}
	if len(r.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first few: %v", len(r.failures), r.requests.Load(),
			errors.Join(r.failures[:min(3, len(r.failures))]...))
	}
}
