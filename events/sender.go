package events

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// attempts is how often a message is offered that is refused before it is dropped.
const attempts = 5

// Kinds of trouble. Each is logged when it begins, and not again before it is over or becomes another.
const (
	troubleAway      = "NATS cannot be reached; events wait"
	troubleDenied    = "NATS does not let us in; events wait"
	troubleStream    = "The stream cannot be created"
	troubleUntaken   = "NATS does not take events; they wait"
	troubleForbidden = "NATS refuses an event"
	troubleIDKey     = "The key of event ids cannot be used; events wait"
)

// sender is what Run does.
type sender struct {
	*Publisher
	// ctx is that of Run; work goes on for a while after it.
	ctx, work context.Context
	tries     backoff
	rebuilds  sync.WaitGroup

	trouble      string
	troubleSince time.Time

	// refused are the types of which one was dropped because it was refused, until one is taken: what comes after does not
	// wait as long again.
	refused map[Type]bool

	hasher *idHasher
}

// run connects, again and again.
func (s *sender) run() {
	s.hasher.refresh() // The log and the metric say from the start whether there is a key.
	for !s.done() {
		l, err := s.options.Config.connect(s.work)
		if err != nil {
			if s.work.Err() == nil {
				s.inTrouble(kindOf(err), err)
			}
			s.pause(nil)
			continue
		}
		s.options.Metrics.connected.Set(1)
		s.connected(l)
		s.serve(l)
		s.options.Metrics.connected.Set(0)
		if l.gone() && s.work.Err() == nil && !s.done() {
			s.options.Logger.Info("The connection to NATS is lost", "reason", l.conn.LastError())
			s.pause(nil)
		}
		l.conn.Close()
	}
}

// done says whether there is nothing left to do.
func (s *sender) done() bool {
	return s.work.Err() != nil || s.ctx.Err() != nil && s.buffer.depth() == 0
}

// pause waits before the next attempt, less long when ctx or what gone stands for ends meanwhile.
func (s *sender) pause(gone <-chan struct{}) {
	wait := s.tries.next()
	ended := s.ctx.Done()
	if s.ctx.Err() != nil {
		wait, ended = min(wait, s.pace.flushRetry), nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-gone:
	case <-ended:
	case <-s.work.Done():
	}
}

// serve publishes until the connection is gone.
func (s *sender) serve(l *link) {
	if s.options.Config.CreateStream {
		// So that consumers find it before the first event. If it fails, publishing tells whether it is missed.
		ctx, cancel := context.WithTimeout(s.work, s.pace.acknowledge)
		err := l.ensureStream(ctx, &s.options.Config)
		cancel()
		if err != nil && !l.gone() && s.work.Err() == nil {
			s.inTrouble(troubleStream, err)
		}
	}
	for !s.done() && !l.gone() {
		s.rebuild()
		if i := s.buffer.take(); i != nil {
			s.deliver(l, i)
			continue
		}
		select {
		case <-s.buffer.more:
		case <-l.closed:
		case <-s.ctx.Done():
		}
	}
}

// deliver settles the item, or leaves it in hand if the connection or the time is over.
func (s *sender) deliver(l *link, i *item) {
	if !s.assignID(l, i) {
		return
	}
	subject := s.options.Config.Prefix + string(i.event.Type)
	for attempt := 1; ; attempt++ {
		began := s.options.Now()
		err := l.publish(s.work, s.pace.acknowledge, subject, i)
		if err == nil {
			s.options.Metrics.acknowledged(i.event.Type, s.options.Now().Sub(began))
			delete(s.refused, i.event.Type)
			s.buffer.settle()
			s.wellAgain()
			return
		}
		if s.work.Err() != nil || l.gone() {
			return
		}
		switch {
		case tooLarge(err):
			s.drop(i, droppedTooLarge, err)
			return
		case forbidden(err) && (s.refused[i.event.Type] || attempt == attempts):
			s.drop(i, droppedRefused, err)
			return
		case forbidden(err):
			s.inTrouble(troubleForbidden, err)
		case errors.Is(err, jetstream.ErrNoStreamResponse):
			ctx, cancel := context.WithTimeout(s.work, s.pace.acknowledge)
			err = l.missing(ctx, &s.options.Config, subject)
			cancel()
			s.inTrouble(troubleUntaken, err)
		default:
			s.inTrouble(troubleUntaken, err)
		}
		s.pause(l.closed)
		if s.work.Err() != nil || l.gone() {
			return
		}
	}
}

// assignID decides once under which id the item is published: a repeat of what may have arrived must have the same id,
// whatever has become of the key meanwhile. It returns false if the connection or the time is over before the key can
// be used.
func (s *sender) assignID(l *link, i *item) bool {
	for i.publishedID == "" {
		id, err := s.hasher.published(i.event.ID)
		if err == nil {
			i.publishedID = id
			break
		}
		s.inTrouble(troubleIDKey, err)
		s.pause(l.closed)
		if s.work.Err() != nil || l.gone() {
			return false
		}
	}
	return true
}

// drop gives up on the item, so that others do not wait for it.
func (s *sender) drop(i *item, reason string, err error) {
	s.options.Metrics.drop(reason, 1)
	if reason == droppedTooLarge || !s.refused[i.event.Type] {
		s.options.Logger.Error("An event was dropped: NATS refuses it",
			"type", i.event.Type, "id", i.event.ID, "bytes", i.size(), "error", err)
	}
	if reason == droppedRefused {
		s.refused[i.event.Type] = true
	}
	s.buffer.settle()
	s.tries.reset()
}

// inTrouble logs the beginning of trouble.
func (s *sender) inTrouble(kind string, err error) {
	if s.trouble == "" {
		s.troubleSince = s.options.Now()
	}
	if s.trouble != kind {
		s.trouble = kind
		s.options.Logger.Warn(kind, "waiting", s.buffer.depth(), "error", err)
	}
}

// connected ends the trouble of not being so.
func (s *sender) connected(l *link) {
	log := s.options.Logger.With("server", l.conn.ConnectedUrlRedacted(), "waiting", s.buffer.depth())
	if s.trouble == troubleAway || s.trouble == troubleDenied {
		s.trouble = ""
		log = log.With("after", s.options.Now().Sub(s.troubleSince).Round(time.Second))
	}
	log.Info("Connected to NATS")
}

// wellAgain is called whenever the stream has taken a message.
func (s *sender) wellAgain() {
	s.tries.reset()
	if s.trouble == "" {
		return
	}
	s.trouble = ""
	s.options.Logger.Info("NATS takes events again", "after", s.options.Now().Sub(s.troubleSince).Round(time.Second), "waiting", s.buffer.depth())
}

// rebuild lets the caller publish the state anew once there is room for it again.
func (s *sender) rebuild() {
	if s.lost.Load() == 0 || s.ctx.Err() != nil || s.buffer.depth() > s.options.Config.Buffer/2 || !s.rebuilding.CompareAndSwap(false, true) {
		return
	}
	lost := s.lost.Swap(0)
	if s.options.Rebuild == nil {
		s.rebuilding.Store(false)
		s.options.Logger.Warn("Events were dropped while NATS was away", "count", lost)
		return
	}
	s.options.Logger.Warn("Events were dropped while NATS was away; the state is published anew", "count", lost)
	s.options.Metrics.rebuilds.Inc()
	s.rebuilds.Go(func() {
		s.options.Rebuild(s.ctx)
		timer := time.NewTimer(s.pace.rebuild)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.ctx.Done():
		}
		s.rebuilding.Store(false)
		s.buffer.poke()
	})
}

// kindOf tells a server that is away from one that does not want us.
func kindOf(err error) string {
	for _, denied := range []error{nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired} {
		if errors.Is(err, denied) {
			return troubleDenied
		}
	}
	return troubleAway
}

func tooLarge(err error) bool {
	return errors.Is(err, nats.ErrMaxPayload) || errors.Is(err, jetstream.ErrStreamMessageExceedsMaximum)
}

// forbidden says whether the answer is about this message, and likely the same the next time.
func forbidden(err error) bool {
	if errors.Is(err, errForbidden) {
		return true
	}
	const timeout, tooMany = 408, 429
	var refusal *jetstream.APIError
	return errors.As(err, &refusal) && refusal.Code >= 400 && refusal.Code < 500 && refusal.Code != timeout && refusal.Code != tooMany
}
