package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/gateway"
)

// eventSource is who says what is published.
const eventSource = "/agent-lifecycle/gateway"

// published is a gateway.Announcer that publishes on NATS.
type published struct {
	publisher *events.Publisher
	now       func() time.Time
}

// Announce implements gateway.Announcer.
func (p published) Announce(n gateway.Notice) { p.publisher.Publish(event(n, p.now())) }

// newPublisher returns a Publisher; nil, which publishes nothing, where there is no NATS. standing says how things stand.
func newPublisher(config events.Config, standing func() []gateway.Notice, registry prometheus.Registerer, log *slog.Logger) (*events.Publisher, error) {
	if config.URL == "" {
		return nil, nil
	}
	var p *events.Publisher
	p, err := events.New(events.Options{
		Config: config, Now: time.Now, Metrics: events.NewMetrics(registry), Logger: log,
		Rebuild: func(ctx context.Context) {
			for _, n := range standing() {
				if p.PublishWhenRoom(ctx, event(n, time.Now())) != nil {
					return
				}
			}
		},
	})
	return p, err
}

// event returns what is published of what an agent says.
func event(n gateway.Notice, now time.Time) events.Event {
	t := events.AgentIdle
	if n.Type == gateway.NoticeWarning {
		t = events.AgentWarning
	}
	return events.Agent(eventSource, t, events.AgentData{
		Namespace: n.Namespace, Deployment: n.Deployment, UID: string(n.UID), UserType: string(n.UserType), Pod: n.Pod,
		Time: n.Since, Deadline: n.Deadline,
	}, now)
}
