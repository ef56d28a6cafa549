package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
)

// Outcome is what became of an agent.
type Outcome string

// The values of Outcome.
const (
	Renewed  Outcome = "done"
	Would    Outcome = "would be done"
	Refused  Outcome = "refused"
	LeftOut  Outcome = "left out"
	Failed   Outcome = "failed"
	Vanished Outcome = "gone"

	// putOff are agents whose turn comes later, which nobody is told.
	putOff Outcome = "later"
)

// Step is what was done to one agent.
type Step struct {
	Namespace, Name string
	Outcome         Outcome

	// Reason says why, and what to do. Changes are what was or would be changed.
	Reason  string
	Changes []string
}

// Roll restarts agents with what is injected today. What happens to each is decided by what the API server says in a dry run, so by the
// webhook itself.
//
// It is safe to stop at any time, and to run again: an agent is restarted by one write, which is refused if anything has changed since
// the agent was last seen idle, and who has today's parts is not looked at again. It ends at the first agent that does not come up, and so
// does every later run until that one is well, is changed, or is said to be skipped.
type Roll struct {
	Cluster *Cluster
	Judge   *Judge
	Mode    Mode

	// Namespace and Selector narrow it down; empty: all.
	Namespace, Selector string

	// Every is the least time between two restarts, ReadyWithin how long an agent may take to come up.
	Every, ReadyWithin time.Duration

	// MaxUnavailable is how many agents may be on their way up at once; 1 if it is 0.
	MaxUnavailable int

	// IdleFor is how long ago the last activity of an agent must be that nothing keeps alive. Working agents are restarted, too, where
	// that is said; after the others.
	IdleFor time.Duration
	Working bool

	// SkipFailed goes on although an earlier run has left agents that are not ready.
	SkipFailed bool

	DryRun bool
	Now    func() time.Time

	// Say is told of each agent, of one at a time.
	Say func(Step)

	mu    sync.Mutex
	tally Tally
	next  time.Time // when the next agent may be restarted

	// dropsRules says that the API server was seen to drop container restart rules.
	dropsRules bool
}

// ErrNotInjected says that the API server does not do to agents what the policy says.
var ErrNotInjected = errors.New("the webhook does not inject what the policy in force says")

// errStopped ends a run at the first agent that does not come up.
var errStopped = errors.New("stopped")

// Tally counts what became of agents.
type Tally map[Outcome]int

// target names an agent to look after.
type target struct{ namespace, name string }

// Run goes through all agents. It ends early without an error at the first one that fails, and with that of ctx when that ends; the agents
// that are restarted then are waited for.
func (r *Roll) Run(ctx context.Context) (Tally, error) {
	r.tally = Tally{}
	targets, err := r.targets(ctx)
	if err != nil {
		return r.tally, err
	}
	later, err := r.each(ctx, targets, false)
	if err == nil {
		_, err = r.each(ctx, later, true)
	}
	if errors.Is(err, errStopped) {
		err = nil
	}
	return r.tally, err
}

// targets lists who seems to need something.
func (r *Roll) targets(ctx context.Context) ([]target, error) {
	namespaces, err := r.Cluster.Namespaces(ctx, r.Namespace, r.Judge.Covers)
	if err != nil {
		return nil, err
	}
	var found []target
	err = r.Cluster.eachDeployment(ctx, r.Namespace, r.Selector, func(d *appsv1.Deployment) error {
		if _, ok := namespaces[d.Namespace]; ok && r.needs(d) != nothing {
			found = append(found, target{d.Namespace, d.Name})
		}
		return nil
	})
	return found, err
}

// each goes through agents. Those that work are put off where they are to be restarted last.
func (r *Roll) each(ctx context.Context, targets []target, working bool) (later []target, err error) {
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(max(1, r.MaxUnavailable))
	for _, t := range targets {
		group.Go(func() error {
			if err := running.Err(); err != nil {
				return err
			}
			step, err := r.one(running, t, working)
			switch {
			case running.Err() != nil && (err != nil || step != nil && step.Outcome == LeftOut): // it was cut off
				return running.Err()
			case err != nil:
				return fmt.Errorf("agent %s/%s: %w", t.namespace, t.name, err)
			case step == nil:
				return nil
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if step.Outcome == putOff {
				later = append(later, t)
				return nil
			}
			step.Namespace, step.Name = t.namespace, t.name
			r.tally[step.Outcome]++
			r.Say(*step)
			if step.Outcome == Failed {
				return errStopped
			}
			return nil
		})
	}
	err = group.Wait()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return later, err
}

// turn waits until the next agent may be restarted, and says whether that took time.
func (r *Roll) turn(ctx context.Context) (waited bool, err error) {
	for {
		r.mu.Lock()
		wait := r.next.Sub(r.Now())
		r.mu.Unlock()
		if wait <= 0 {
			return waited, nil
		}
		waited = true
		if err := sleep(ctx, wait); err != nil {
			return waited, err
		}
	}
}

// take uses up the turn, which somebody else may have done before.
func (r *Roll) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if now.Before(r.next) {
		return false
	}
	r.next = now.Add(r.Every)
	return true
}

// judge is the Judge by what the API server was seen to keep.
func (r *Roll) judge() *Judge {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dropsRules {
		return r.Judge.withoutRestartRules()
	}
	return r.Judge
}

func (r *Roll) sawRulesDropped() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropsRules = true
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
