package fleet

import (
	"context"
	"sync"
	"time"

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

// asking bounds how many agents are asked at once what they do.
const asking = 16

// List hands an Entry of every agent to each, by namespace and name. Idle is who would be taken for idle by a Roll with that IdleFor;
// whoever cannot be asked is taken to work.
func List(ctx context.Context, c *Cluster, j *Judge, namespace, selector string, idleFor time.Duration, each func(Entry) error) error {
	namespaces, err := c.Namespaces(ctx, namespace, j.Covers)
	if err != nil {
		return err
	}
	for _, n := range namespaces {
		var batch []*appsv1.Deployment
		flush := func() error {
			entries, err := entriesOf(ctx, c, j, batch, idleFor)
			batch = nil
			if err != nil {
				return err
			}
			for _, e := range entries {
				if err := each(e); err != nil {
					return err
				}
			}
			return nil
		}
		err := c.eachDeployment(ctx, n.Name, selector, func(d *appsv1.Deployment) error {
			if batch = append(batch, d); len(batch) < asking {
				return nil
			}
			return flush()
		})
		if err != nil {
			return err
		}
		if err := flush(); err != nil {
			return err
		}
	}
	return nil
}

func entriesOf(ctx context.Context, c *Cluster, j *Judge, batch []*appsv1.Deployment, idleFor time.Duration) ([]Entry, error) {
	entries, errs := make([]Entry, len(batch)), make([]error, len(batch))
	var wait sync.WaitGroup
	for i, d := range batch {
		wait.Go(func() {
			var s Seen
			s, errs[i] = c.look(ctx, d, idleFor, time.Now)
			entries[i] = j.entry(d, s)
		})
	}
	wait.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return entries, nil
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
