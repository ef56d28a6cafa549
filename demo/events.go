package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/dexorder/agent-lifecycle/internal/natsserver"
)

// stream is what the servers create for their events.
const stream = "AGENT_LIFECYCLE"

// startNATS runs a NATS server, to which the servers of the installation will publish.
func (d *demo) startNATS() error {
	var err error
	if d.eventsDir, err = os.MkdirTemp("", "agent-lifecycle-demo-nats-"); err != nil {
		return err
	}
	if d.nats, err = natsserver.Start(natsserver.Options{Dir: d.eventsDir}); err != nil {
		return err
	}
	d.options.Flags = append(d.options.Flags, "--nats-url", d.nats.URL())
	return nil
}

// feed prints events as they come, and remembers their types.
type feed struct {
	mu    sync.Mutex
	types map[string][]string // by subject
	stop  func()
}

// follow begins with the next event.
func (d *demo) follow(ctx context.Context) (*feed, error) {
	connection, err := nats.Connect(d.nats.URL())
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(connection)
	if err != nil {
		return nil, err
	}
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	f := &feed{types: map[string][]string{}}
	consume, err := consumer.Consume(func(m jetstream.Msg) { f.show(d, m) })
	if err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	f.stop = func() {
		consume.Stop()
		connection.Close()
	}
	return f, nil
}

func (f *feed) show(d *demo, m jetstream.Msg) {
	var event struct {
		Type, Subject string
		Data          struct{ Reason string }
	}
	if json.Unmarshal(m.Data(), &event) != nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.types[event.Subject] = append(f.types[event.Subject], event.Type)
	d.say("    %-40s %s  %s", m.Subject(), event.Subject, event.Data.Reason)
}

// heard says whether an event of a type has come.
func (f *feed) heard(subject, eventType string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.types[subject] {
		if t == eventType {
			return true
		}
	}
	return false
}
