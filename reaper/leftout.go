package reaper

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// notedOfIdleness are the annotations by which passes remember that nothing runs in a namespace.
var notedOfIdleness = []string{lifecycle.AnnotationReaping, lifecycle.AnnotationSightings, lifecycle.AnnotationIdleSince, lifecycle.AnnotationPhase}

// forgetLeftOut takes from namespaces that the policy leaves out what passes have noted of them. Nobody looks at them
// any more, so that it would be of another time when the policy covers them again, and they would be deleted by it at
// once.
func (w *worker) forgetLeftOut(ctx context.Context) error {
	if w.DryRun {
		return nil
	}
	policy := w.Policy.File()
	var errs []error
	for i := range policy.Profiles {
		for _, name := range policy.Profiles[i].Namespaces.Except {
			if !policy.LeavesOut(name) {
				continue
			}
			if err := w.forgetIdleness(ctx, name); err != nil {
				errs = append(errs, fmt.Errorf("namespace %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// forgetIdleness asks the API server, since the inventory has nothing of what is left out.
func (w *worker) forgetIdleness(ctx context.Context, name string) error {
	n, _, err := w.liveNamespace(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case n.deleting || notOurs(n, orgs(w.settings()), w.Namespace) != "":
		return nil
	}
	changes := map[string]*string{}
	for _, key := range notedOfIdleness {
		if _, has := n.annotations[key]; has {
			changes[key] = nil
		}
	}
	if len(changes) == 0 {
		return nil
	}
	_, err = w.annotate(ctx, n, changes)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the next pass looks again
	}
	if err == nil {
		w.Logger.InfoContext(ctx, "A namespace is left out of the policy: what was noted of its idleness is taken back", "namespace", name)
	}
	return err
}
