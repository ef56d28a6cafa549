package events

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// Options of a Publisher. All but Rebuild are required.
type Options struct {
	Config Config

	// Rebuild publishes anew how things stand, with PublishWhenRoom. It is called when NATS takes events again after some were
	// dropped for want of room, and in a goroutine of its own, one at a time. Its context ends with that of Run. What
	// the stream has already it recognises by the id.
	Rebuild func(ctx context.Context)

	// Now is the clock.
	Now func() time.Time

	Metrics *Metrics
	Logger  *slog.Logger
}

// Publisher publishes events in the order in which it gets them. It is safe for concurrent use. A nil Publisher is one that
// publishes nothing, for where there is no NATS.
type Publisher struct {
	options Options
	pace    pace
	buffer  *buffer

	// lost is how many were dropped for want of room since the last Rebuild.
	lost       atomic.Int64
	rebuilding atomic.Bool
}

// pace is what takes how long.
type pace struct {
	// retryLeast and retryMost bound the pause between attempts, of connecting and of publishing alike.
	retryLeast, retryMost time.Duration

	// acknowledge is how long an acknowledgement may take.
	acknowledge time.Duration

	// flush is how long Run goes on for what waits after its context has ended, and flushRetry the longest pause then.
	flush, flushRetry time.Duration

	// rebuild is the pause after a Rebuild, should that itself cause the next one.
	rebuild time.Duration
}

var defaultPace = pace{
	retryLeast: 100 * time.Millisecond, retryMost: 30 * time.Second, acknowledge: 5 * time.Second,
	flush: 5 * time.Second, flushRetry: 250 * time.Millisecond, rebuild: time.Minute,
}

// New returns a Publisher. It connects in Run; events may be published before that.
func New(options Options) (*Publisher, error) {
	if err := options.Config.Validate(); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}
	buffer := newBuffer(options.Config.Buffer, func(n int) { options.Metrics.buffered.Set(float64(n)) })
	return &Publisher{options: options, pace: defaultPace, buffer: buffer}, nil
}

// Publish takes an event on its way. It never waits: if there is no room the oldest event is dropped. An event that is
// waiting already, by its ID, is the same one.
func (p *Publisher) Publish(e Event) {
	if p == nil {
		return
	}
	i, ok := p.encode(e)
	if !ok {
		return
	}
	dropped, open := p.buffer.add(i)
	if dropped {
		p.options.Metrics.drop(droppedOverflow, 1)
		if p.lost.Add(1) == 1 {
			p.options.Logger.Warn("Too many events wait for NATS: the oldest are dropped", "room", p.options.Config.Buffer)
		}
	}
	p.added(open)
}

// PublishWhenRoom is Publish, but waits until there is room instead of dropping the oldest event. It returns an error only if ctx
// ended before that.
func (p *Publisher) PublishWhenRoom(ctx context.Context, e Event) error {
	if p == nil {
		return nil
	}
	i, ok := p.encode(e)
	if !ok {
		return nil
	}
	open, err := p.buffer.addWhenRoom(ctx, i)
	if err != nil {
		return fmt.Errorf("event %s: %w", e.ID, err)
	}
	p.added(open)
	return nil
}

func (p *Publisher) added(open bool) {
	if !open {
		p.options.Metrics.drop(droppedShutdown, 1)
	}
}

// encode makes JSON of the event's data while the caller waits, who may change what Data points to afterwards.
func (p *Publisher) encode(e Event) (item, bool) {
	data, err := json.Marshal(e.Data)
	if err = errors.Join(err, e.validate()); err != nil {
		p.options.Metrics.drop(droppedInvalid, 1)
		p.options.Logger.Error("An event was dropped: it is no CloudEvent", "type", e.Type, "id", e.ID, "error", err)
		return item{}, false
	}
	e.Data = json.RawMessage(data)
	return item{event: e}, true
}

// Run publishes until ctx ends, and then for some seconds what still waits. It returns nil. That NATS is away is no error: it is
// logged once, and tried again. Run is called once.
func (p *Publisher) Run(ctx context.Context) error {
	if p == nil {
		<-ctx.Done()
		return nil
	}
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(p.pace.flush, stop) })()

	s := &sender{
		Publisher: p, ctx: ctx, work: work,
		tries:   backoff{least: p.pace.retryLeast, most: p.pace.retryMost},
		refused: map[Type]bool{},
		hasher:  newIDHasher(p.options.Config.EventIDKeyFile, p.options.Now, p.options.Metrics, p.options.Logger),
	}
	s.run()
	s.rebuilds.Wait()

	left := p.buffer.close()
	if len(left) > 0 {
		p.options.Metrics.drop(droppedShutdown, len(left))
		p.options.Logger.Warn("Events were not published before the end", "count", len(left), "first", left[0].event.ID)
	}
	return nil
}
