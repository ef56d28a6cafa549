package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// eventSource is who says what is published.
const eventSource = "/agent-lifecycle/reaper"

// published is an Announcer that publishes on NATS.
type published struct {
	publisher *events.Publisher
	now       func() time.Time

	mu sync.Mutex
	// breaker is what was last published of the circuit breaker, to be published anew where events were lost.
	breaker *events.Event
}

// newPublished returns an Announcer and the part that has to run beside it; nil where there is no NATS. states says how things stand.
func newPublished(config events.Config, states func() []reaper.Event, registry prometheus.Registerer, log *slog.Logger) (*published, error) {
	if config.URL == "" {
		return nil, nil
	}
	p := &published{now: time.Now}
	var err error
	p.publisher, err = events.New(events.Options{
		Config: config, Now: time.Now, Metrics: events.NewMetrics(registry), Logger: log,
		Rebuild: func(ctx context.Context) {
			if event := p.breakerEvent(); event != nil && p.publisher.PublishWhenRoom(ctx, *event) != nil {
				return
			}
			for _, e := range states() {
				if event, has := p.event(e); has && p.publisher.PublishWhenRoom(ctx, event) != nil {
					return
				}
			}
		},
	})
	return p, err
}

// Announce implements reaper.Announcer.
func (p *published) Announce(e reaper.Event) {
	if event, has := p.event(e); has {
		p.publisher.Publish(event)
	}
}

// Run implements program.Component.
func (p *published) Run(ctx context.Context) error { return p.publisher.Run(ctx) }

// eventTypes are what the reaper's events are called outside.
var eventTypes = map[reaper.EventType]events.Type{
	reaper.NamespaceCreated:   events.NamespaceCreated,
	reaper.NamespaceActive:    events.NamespaceActive,
	reaper.NamespaceUnhealthy: events.NamespaceUnhealthy,
	reaper.NamespaceIdle:      events.NamespaceIdle,
	reaper.NamespaceProtected: events.NamespaceKept,
	reaper.NamespaceMarked:    events.NamespaceMarked,
	reaper.NamespaceUnmarked:  events.NamespaceUnmarked,
	reaper.NamespaceReaping:   events.NamespaceReaping,
	reaper.NamespaceReaped:    events.NamespaceReaped,
	reaper.NamespaceStuck:     events.NamespaceStuck,
	reaper.NamespaceDrifted:   events.NamespaceDrift,
	reaper.AgentCreated:       events.AgentCreated,
	reaper.AgentRunning:       events.AgentRunning,
	reaper.AgentShutdown:      events.AgentShutdown,
	reaper.AgentDeleted:       events.AgentDeleted,
	reaper.CapExceeded:        events.ReaperCapExceeded,
}

// cappedKinds are the kinds of what the reapers delete, by the reaper's name.
var cappedKinds = map[string]string{
	"namespaces": "Namespace", "agents": "Deployment", "claims": "PersistentVolumeClaim", "leftovers": "Leftover",
}

// event returns what is published of an event of the reaper. What it deletes one by one is seen by what becomes of agents, and is not
// published.
func (p *published) event(e reaper.Event) (events.Event, bool) {
	t, has := eventTypes[e.Type]
	switch {
	case !has:
		return events.Event{}, false
	case e.Type == reaper.CapExceeded:
		return events.Cap(eventSource, events.CapData{
			Kind: cappedKinds[e.Name], Candidates: e.Candidates, Allowed: e.Allowed, Total: e.Total, Reason: e.Reason, Since: e.Time,
		}, p.now()), true
	case e.Kind == "Deployment":
		d := events.AgentData{
			Namespace: e.Namespace, Deployment: e.Name, UID: string(e.UID), UserType: e.UserType, Pod: e.Pod, Reason: e.Reason, Time: e.Time,
		}
		if e.Type == reaper.AgentShutdown {
			d.ExitCode = new(int32(e.ExitCode))
		}
		return events.Agent(eventSource, t, d, p.now()), true
	}
	return events.Namespace(eventSource, t, events.NamespaceData{
		Namespace: e.Name, UID: string(e.UID), Role: e.Role, Org: e.Org, Environment: e.Environment, Reason: e.Reason, Details: slices.Concat(e.HeldBy, e.Drift),
		Since: e.Time, LastActivity: e.LastActivity,
	}, p.now()), true
}
