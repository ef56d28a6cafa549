//go:build e2e

package installation

import (
	"context"
	"errors"
	"testing"
	"time"
)

// startTraffic creates an agent in a dry run every now and then. What it returns ends that, and fails the test if a request
// was lost.
func startTraffic(t *testing.T) (check func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	requests, failures, done := 0, []error{}, make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if err := tryAgent(ctx); err != nil && ctx.Err() == nil {
				failures = append(failures, err)
			}
			requests++
			time.Sleep(50 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() {
		t.Helper()
		cancel()
		<-done
		t.Logf("%d requests, %d failures", requests, len(failures))
		if requests < 10 || len(failures) > 0 {
			t.Errorf("%d of %d requests failed, the first few: %v", len(failures), requests,
				errors.Join(failures[:min(3, len(failures))]...))
		}
	}
}
