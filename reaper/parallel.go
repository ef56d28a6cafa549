package reaper

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// deleteEach deletes n objects, some at a time, and tells what became of each.
func (w *worker) deleteEach(ctx context.Context, result *Result, n int, describe func(int) (Decision, func(context.Context) error)) {
	var group errgroup.Group
	group.SetLimit(int(w.settings().Parallelism))
	var mu sync.Mutex
	failed := 0
	var first error
	var unreadable error
	for i := range n {
		if ctx.Err() != nil {
			break
		}
		d, remove := describe(i)
		group.Go(func() error {
			err := remove(ctx)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				d.Verdict = "deleted"
				result.Reaped++
				w.Metrics.reaped.WithLabelValues(result.Reaper).Inc()
			case gone(err):
				return nil
			case heldBy(err) != nil:
				d.Verdict, d.Reason = "kept", heldBy(err).Error()
				result.keep(heldReason)
				if !heldBy(err).Open() {
					unreadable = heldBy(err)
				}
			case errors.Is(err, errKept), apierrors.IsConflict(err):
				d.Verdict, d.Reason = "kept", err.Error()
				result.keep("changed meanwhile")
			default:
				d.Verdict, d.Reason = "failed", err.Error()
				failed++
				if first == nil {
					first = fmt.Errorf("%s %s/%s: %w", d.Kind, d.Namespace, d.Name, err)
				}
			}
			w.say(ctx, result, d, false)
			if d.Verdict == "deleted" {
				w.forget(result, &d)
				w.Announcer.Announce(reapedEvent(&d, w.Now()))
			}
			return nil
		})
	}
	_ = group.Wait()
	if first != nil {
		result.Error = fmt.Sprintf("%d of %d could not be deleted, the first: %v", failed, n, first)
	}
	result.fail(unreadable)
}

// heldReason is what a pass counts of what the circuit breaker has kept.
const heldReason = "the circuit breaker lets nothing be deleted"
