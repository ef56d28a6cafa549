package fleet

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Entry is one agent in a list.
type Entry struct {
	Namespace, Name string
	State           lifecycle.State
	UserType        lifecycle.UserType

	// Since is since when it is idle or works, as it says; zero where nobody knows.
	Since time.Time

	// Reason is for people.
	Reason string

	// SidecarImage is empty where it has none.
	SidecarImage string
	Sidecar      Sidecar

	// Storage is none, kept or temporary: whether what it has stored outlives it.
	Storage string
}

// asking bounds how many agents are asked at once what they do. One that does not answer takes askTimeout.
const asking = 64

// List hands an Entry of every agent to each, by namespace and name. Idle is who would be taken for idle by a Roll with that IdleFor;
// whoever cannot be asked is taken to work.
func List(ctx context.Context, c *Cluster, j *Judge, namespace, selector string, idleFor time.Duration, each func(Entry) error) error {
	namespaces, err := c.Namespaces(ctx, namespace, j.Covers)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	looking := make(chan chan Entry, asking) // in the order of the list
	group.Go(func() error {
		defer close(looking)
		return c.eachDeployment(ctx, namespace, selector, func(d *appsv1.Deployment) error {
			if _, ok := namespaces[d.Namespace]; !ok {
				return nil
			}
			found := make(chan Entry, 1)
			select {
			case looking <- found:
			case <-ctx.Done():
				return ctx.Err()
			}
			group.Go(func() error {
				s, err := c.look(ctx, d, idleFor, time.Now)
				if err != nil {
					return err
				}
				found <- j.entry(d, s)
				return nil
			})
			return nil
		})
	})
	group.Go(func() error {
		for found := range looking {
			select {
			case e := <-found:
				if err := each(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return group.Wait()
}

func (j *Judge) entry(d *appsv1.Deployment, s Seen) Entry {
	e := Entry{
		Namespace: d.Namespace, Name: d.Name, UserType: lifecycle.UserType(d.Labels[lifecycle.LabelUserType]), Since: s.Since, Reason: s.Reason,
		Storage: "none", State: lifecycle.Running,
	}
	e.Sidecar, e.SidecarImage = j.SidecarOf(d.Namespace, d)
	for _, volume := range d.Spec.Template.Spec.Volumes {
		if volume.PersistentVolumeClaim != nil {
			e.Storage = "kept"
			if j.file.Tiers[e.UserType].Storage == v1alpha1.StorageDelete {
				e.Storage = "temporary"
			}
		}
	}
	switch {
	case d.DeletionTimestamp != nil || s.Work == Ended:
		e.State = lifecycle.Shutdown
	case s.Work == Stopped || d.Status.ReadyReplicas == 0:
		e.State = lifecycle.Created
	case s.Work == IsIdle:
		e.State = lifecycle.Idle
	}
	return e
}
