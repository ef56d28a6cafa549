package reaper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// confirm decides once more, by what the API server says now, and returns what is in the namespace if that is dead. If anything
// lives, the mark is taken back.
func (d *dismantler) confirm(ctx context.Context, n *namespace) (*facts, error) {
	policy := d.settings()
	if why := d.foreign(n, orgs(policy)); why != "" {
		d.Logger.WarnContext(ctx, "A namespace is no longer the reaper's", "namespace", n.name, "reason", why)
		return nil, nil
	}
	f, err := d.liveFacts(ctx, n)
	if err != nil {
		return nil, err
	}
	protected, err := d.protectedObject(ctx, n)
	if err != nil {
		return nil, err
	}
	v := decideNamespace(f, policy, d.Now())
	if protected != "" {
		v = keepFor(n, protected, d.Now())
	}
	if v.phase == Dismantled {
		return f, nil
	}
	d.Logger.InfoContext(ctx, "A namespace that was marked stays", "namespace", n.name, "phase", v.phase, "reason", v.reason)
	written, err := d.annotate(ctx, n, v.annotations)
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	d.inventory.written(written)
	d.announcePhase(n, written, v.reason)
	return nil, nil
}

// leaving says whether something in a namespace is known to be on its way out. While the watches show that, there is no need to ask:
// a step takes a dozen requests.
func (d *dismantler) leaving(name string) bool {
	leaving := false
	d.inventory.look(name, func(p *place) {
		for _, w := range p.workloads {
			orphaned := w.owner != "" && p.workloads[w.owner] == nil // the garbage collector's, which comes to it
			leaving = leaving || w.deleting || orphaned
		}
		for _, c := range p.claims {
			leaving = leaving || c.deleting
		}
	})
	return leaving
}

// errUngranted says that a namespace does not let the reaper take it apart.
var errUngranted = errors.New("it does not grant the reaper to take it apart: it has no RoleBinding of ClusterRole lifecycle-reaper-role-namespace")

// granted returns nil if the namespace lets the reaper take it apart, as its RoleBinding does. One that is empty could be deleted
// without: a right to delete namespaces is one for all of them.
func (d *dismantler) granted(ctx context.Context, n *namespace) error {
	review, err := d.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: n.name, Verb: "delete", Resource: "persistentvolumeclaims",
		}},
	}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("ask for the rights in it: %w", err)
	case !review.Status.Allowed:
		return errUngranted
	}
	return nil
}

// sayUngranted logs once that a namespace stays for that. The next pass asks again.
func (d *dismantler) sayUngranted(ctx context.Context, name string) {
	d.approval.Lock()
	said := d.ungranted[name]
	d.ungranted[name] = true
	d.approval.Unlock()
	if !said {
		d.Logger.WarnContext(ctx, "A namespace stays", "namespace", name, "reason", errUngranted.Error())
	}
}

// protectedObject names a ConfigMap or Secret that somebody protects; "" if there is none. They are not watched, so that this is seen
// only once a namespace is marked.
func (d *dismantler) protectedObject(ctx context.Context, n *namespace) (string, error) {
	for _, k := range stamped(d.client) {
		if k.kind == "Job" {
			continue // a workload
		}
		all, err := k.list(ctx, n.name, "", "")
		if err != nil {
			return "", err
		}
		for _, l := range all {
			if why := lifecycle.Protection(l.protected, d.Now()); why != "" {
				return fmt.Sprintf("%s %s: %s", l.kind, l.name, why), nil
			}
		}
	}
	return "", nil
}

// keepFor takes the mark off a namespace, which begins to be idle anew.
func keepFor(n *namespace, why string, now time.Time) verdict {
	w := writer{n: n, now: now}
	w.clear(lifecycle.AnnotationReaping, lifecycle.AnnotationSightings)
	w.set(lifecycle.AnnotationIdleSince, now.UTC().Format(time.RFC3339))
	return w.verdict(Protected, why)
}

// liveFacts reads what is in a namespace. It asks for everything at the same time: an API server that lists from its cache may wait
// for that to catch up with each.
func (d *dismantler) liveFacts(ctx context.Context, n *namespace) (*facts, error) {
	f := &facts{namespace: n}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, k := range kinds() {
		if k.name == "Namespace" {
			continue
		}
		group.Go(func() error {
			records, err := k.live(ctx, d.client, n.name)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				switch r := r.(type) {
				case *pod:
					f.pods = append(f.pods, r)
				case *workload:
					f.workloads = append(f.workloads, r)
				case *claim:
					f.claims = append(f.claims, r)
				case *service:
					f.services = append(f.services, r)
				case *scaler:
					f.scalers = append(f.scalers, r)
				}
			}
			return nil
		})
	}
	return f, group.Wait()
}
