package events

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// codeSubjectsOverlap is what the server answers when another stream takes the subjects; the client has no name for it.
const codeSubjectsOverlap jetstream.ErrorCode = 10065

func (c *Config) streamConfig() jetstream.StreamConfig {
	maxBytes := c.MaxBytes
	if maxBytes == 0 {
		maxBytes = -1
	}
	return jetstream.StreamConfig{
		Name:        c.Stream,
		Description: "What becomes of agents and their namespaces (agent-lifecycle)",
		Subjects:    []string{c.Prefix + ">"},
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardOld,
		Storage:     jetstream.FileStorage,
		MaxAge:      c.MaxAge,
		MaxBytes:    maxBytes,
		Duplicates:  c.Duplicates,
		Replicas:    c.Replicas,
	}
}

// ensureStream creates the stream unless it, or another that takes the subjects, exists.
func (l *link) ensureStream(ctx context.Context, c *Config) error {
	attempt, done := l.watch(ctx, "")
	defer done()
	_, err := l.js.Stream(attempt, c.Stream)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return l.explain(attempt, "look for stream "+c.Stream, err)
	}
	_, err = l.js.CreateStream(attempt, c.streamConfig())
	var refusal *jetstream.APIError
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) || errors.As(err, &refusal) && refusal.ErrorCode == codeSubjectsOverlap {
		return nil
	}
	return l.explain(attempt, "create stream "+c.Stream, err)
}

// missing says why nobody took a message.
func (l *link) missing(ctx context.Context, c *Config, subject string) error {
	wanted := fmt.Sprintf("no stream takes %s: there must be one with the subjects %s>", subject, c.Prefix)
	if !c.CreateStream {
		return fmt.Errorf("%w; create it, or allow its creation as %s", errors.New(wanted), c.Stream)
	}
	if err := l.ensureStream(ctx, c); err != nil {
		return fmt.Errorf("%s: %w", wanted, err)
	}
	attempt, done := l.watch(ctx, "")
	defer done()
	stream, err := l.js.Stream(attempt, c.Stream)
	if err != nil {
		return l.explain(attempt, wanted, err)
	}
	return fmt.Errorf("%s; stream %s has %s", wanted, c.Stream, strings.Join(stream.CachedInfo().Config.Subjects, ", "))
}
