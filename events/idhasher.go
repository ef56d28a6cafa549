package events

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

const (
	// MinEventIDKey is the least number of bytes in a key of event ids. Fewer than 128 bits could be searched for, since
	// every id that is published tells whether a guess was right.
	MinEventIDKey = 16

	// MaxEventIDKey is the largest number of bytes in a key of event ids.
	MaxEventIDKey = 4096

	// eventIDKeyInterval is the time between two reads of the key's file. It follows the kubelet, which fills an optional
	// volume within a minute or two of the Secret's creation.
	eventIDKeyInterval = 10 * time.Second
)

// idHasher turns the ids of events into those under which they are published. The stream drops a message whose id it
// has, so a stranger who can compute an id, and may publish on the subject, suppresses the event by publishing first.
// It is not safe for concurrent use.
type idHasher struct {
	file    string
	now     func() time.Time
	metrics *Metrics
	log     *slog.Logger

	// key is the last good one; nil while there was none.
	key []byte

	// readAt is when the file was last read, and readErr why that gave no key.
	readAt  time.Time
	readErr error
}

// newIDHasher reads nothing yet. file may be empty: then ids are published as they are.
func newIDHasher(file string, now func() time.Time, metrics *Metrics, log *slog.Logger) *idHasher {
	return &idHasher{file: file, now: now, metrics: metrics, log: log}
}

// published returns the id under which the event with this id is published: its HMAC once there was a key, the id
// itself while there is no file. It returns an error if there is a file and no key could ever be read from it.
func (h *idHasher) published(id string) (string, error) {
	h.refresh()
	switch {
	case h.key != nil:
		mac := hmac.New(sha256.New, h.key)
		mac.Write([]byte(id))
		return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
	case errors.Is(h.readErr, fs.ErrNotExist):
		return id, nil
	}
	return "", h.readErr
}

// refresh reads the file if the last time is an interval ago. A key that was good stays in use while the file gives
// none: other replicas may still have it, and two ids for one event are two events.
func (h *idHasher) refresh() {
	now := h.now()
	if !h.readAt.IsZero() && now.Sub(h.readAt).Abs() < eventIDKeyInterval {
		return
	}
	first, before := h.readAt.IsZero(), h.readErr
	h.readAt = now
	key, err := readEventIDKey(h.file)
	h.readErr = err
	switch {
	case err == nil && !hmac.Equal(key, h.key):
		h.key = key
		h.metrics.keyed.Set(1)
		h.log.Info("Event ids are made with the key", "file", h.file)
	case err == nil || !first && before != nil && before.Error() == err.Error():
	case h.key != nil:
		h.log.Warn("The key of event ids cannot be read; the last one stays in use", "error", err)
	case errors.Is(err, fs.ErrNotExist):
		h.log.Warn("There is no key of event ids: who may publish on their subjects can suppress an event by its id",
			"flag", "--event-id-key", "error", err)
	}
}

// readEventIDKey returns an error that is fs.ErrNotExist where there is no file, or none is configured.
func readEventIDKey(file string) ([]byte, error) {
	if file == "" {
		return nil, fmt.Errorf("no file is configured: %w", fs.ErrNotExist)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("event id key: %w", err)
	}
	defer f.Close()
	key, err := io.ReadAll(io.LimitReader(f, MaxEventIDKey+1))
	if err != nil {
		return nil, fmt.Errorf("event id key: %w", err)
	}
	if len(key) < MinEventIDKey || len(key) > MaxEventIDKey {
		size := fmt.Sprintf("%d bytes", len(key))
		if len(key) > MaxEventIDKey {
			size = fmt.Sprintf("more than %d bytes", MaxEventIDKey)
		}
		return nil, fmt.Errorf("event id key %s: has %s; accepted are %d to %d random bytes",
			file, size, MinEventIDKey, MaxEventIDKey)
	}
	return key, nil
}
