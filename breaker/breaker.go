package breaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Name is what the ConfigMap is called.
const Name = "lifecycle-breaker"

// ConfigMaps of the namespace that holds the breaker. client-go's typed client is one.
type ConfigMaps interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (*corev1.ConfigMap, error)
	Update(ctx context.Context, cm *corev1.ConfigMap, opts metav1.UpdateOptions) (*corev1.ConfigMap, error)
}

// OpenError says that the breaker is open.
type OpenError struct {
	// Since is when it opened, Reason says why.
	Since  time.Time
	Reason string

	// OpenedBy is who opened it by hand; empty if it opened by itself.
	OpenedBy string
}

// Error implements error. It says how the breaker is released.
func (e *OpenError) Error() string {
	why := e.Reason
	if e.OpenedBy != "" {
		why = "opened by " + e.OpenedBy + ": " + e.Reason
	}
	return fmt.Sprintf("the circuit breaker is open since %s (%s); nothing is deleted until an operator has looked: "+
		"kubectl agents breaker status, kubectl agents breaker release", e.Since.UTC().Format(time.RFC3339), why)
}

func openError(s *State) *OpenError {
	return &OpenError{Since: s.Since, Reason: s.Reason, OpenedBy: s.OpenedBy}
}

// Options of a Breaker. All are required.
type Options struct {
	ConfigMaps ConfigMaps

	// Limits in force; asked for every time.
	Limits func() Limits

	// Now is the clock.
	Now func() time.Time

	Metrics *Metrics
	Logger  *slog.Logger
}

// Breaker takes tokens from the state in the ConfigMap. It is safe for concurrent use.
type Breaker struct {
	options Options

	// While one write is under way, the takes that come meanwhile wait and become one write together: many agents that go
	// at once must not keep one another from it by conflicts.
	mu      sync.Mutex
	waiting []take
	writing bool
}

// take is somebody who asks, and waits for the result.
type take struct {
	key    string
	result chan error
}

// New returns a Breaker.
func New(options Options) *Breaker { return &Breaker{options: options} }

const (
	// writeTimeout bounds one write with its retries; who waits has a deadline of its own.
	writeTimeout = 4 * time.Second

	// conflictPause is what a write waits after it lost against another replica's.
	conflictPause = 5 * time.Millisecond
)

// Take counts one deletion, of what key names: its UID. Asking again for the same one counts nothing. It returns an *OpenError
// if the breaker is open or this opened it, and any other error if that could not be found out; then nothing may be deleted
// either. The deletion may be counted even if ctx ends before that is known.
func (b *Breaker) Take(ctx context.Context, key string) error {
	t := take{key, make(chan error, 1)}
	b.mu.Lock()
	b.waiting = append(b.waiting, t)
	if !b.writing {
		b.writing = true
		go b.write()
	}
	b.mu.Unlock()
	select {
	case err := <-t.result:
		return err
	case <-ctx.Done():
		return fmt.Errorf("circuit breaker: %w", ctx.Err())
	}
}

// write takes for whoever waits until nobody does.
func (b *Breaker) write() {
	for {
		b.mu.Lock()
		waiting := b.waiting
		b.waiting = nil
		if len(waiting) == 0 {
			b.writing = false
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		keys := make([]string, len(waiting))
		for i := range waiting {
			keys[i] = waiting[i].key
		}
		granted, refusal := b.take(keys)
		for i := range waiting {
			if i < len(granted) && granted[i] {
				waiting[i].result <- nil
			} else {
				waiting[i].result <- refusal
			}
		}
	}
}

// take says which of the keys were granted, and what to tell the others.
func (b *Breaker) take(keys []string) ([]bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	for {
		cm, state, err := read(ctx, b.options.ConfigMaps)
		if err != nil {
			b.options.Metrics.failed(len(keys))
			return nil, err
		}
		wasOpen := state.Open
		granted := state.Take(keys, b.options.Limits(), b.options.Now())
		if !wasOpen || slices.Contains(granted, true) { // which notes that it was asked for again
			encode(&state, cm)
			_, err = b.options.ConfigMaps.Update(ctx, cm, metav1.UpdateOptions{})
		}
		switch {
		case apierrors.IsConflict(err) && pause(ctx, conflictPause):
			continue
		case err != nil:
			b.options.Metrics.failed(len(keys))
			return nil, fmt.Errorf("circuit breaker: %w", err)
		}
		count := 0
		for _, g := range granted {
			if g {
				count++
			}
		}
		b.options.Metrics.took(count, len(keys)-count, state.Open)
		if state.Open && !wasOpen {
			b.options.Logger.Error("The circuit breaker has opened: nothing is deleted until it is released",
				"reason", state.Reason, "granted", count, "refused", len(keys)-count)
		}
		return granted, openError(&state)
	}
}

// GiveBack takes back what Take has counted for a key whose deletion did not come about, unless the key was asked for
// again less than settled ago, which is how long an answer may take to become a deletion; see State.GiveBack.
func (b *Breaker) GiveBack(ctx context.Context, key string, settled time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for {
		cm, state, err := read(ctx, b.options.ConfigMaps)
		if err != nil {
			return err
		}
		wasOpen := state.Open
		if !state.GiveBack([]string{key}, b.options.Limits(), b.options.Now(), settled) {
			return nil
		}
		encode(&state, cm)
		_, err = b.options.ConfigMaps.Update(ctx, cm, metav1.UpdateOptions{})
		switch {
		case apierrors.IsConflict(err) && pause(ctx, conflictPause):
			continue
		case err != nil:
			return fmt.Errorf("circuit breaker: %w", err)
		}
		b.options.Metrics.saw(state.Open)
		if wasOpen && !state.Open {
			b.options.Logger.Warn("The circuit breaker is closed again: it had opened by deletions that did not come about")
		}
		return nil
	}
}

// Closed returns nil if the breaker is closed, an *OpenError if it is open, and any other error if that could not be read.
// It takes nothing.
func (b *Breaker) Closed(ctx context.Context) error {
	_, state, err := read(ctx, b.options.ConfigMaps)
	if err != nil {
		return err
	}
	b.options.Metrics.saw(state.Open)
	if state.Open {
		return openError(&state)
	}
	return nil
}

// Read returns the state.
func Read(ctx context.Context, configMaps ConfigMaps) (State, error) {
	_, state, err := read(ctx, configMaps)
	return state, err
}

// Release closes the breaker in the name of the user by. It returns the state before and after, which are equal if it
// was closed.
func Release(ctx context.Context, configMaps ConfigMaps, by string, now time.Time) (before, after State, err error) {
	return change(ctx, configMaps, func(s *State) bool { return s.Release(by, now) })
}

// Open opens the breaker in the name of the user by, for a reason that CheckReason accepts. It returns the state
// before and after, which are equal if a user had opened it by hand already.
func Open(ctx context.Context, configMaps ConfigMaps, by, reason string, now time.Time) (before, after State, err error) {
	if err := CheckReason(reason); err != nil {
		return State{}, State{}, err
	}
	return change(ctx, configMaps, func(s *State) bool { return s.OpenByHand(by, reason, now) })
}

// change writes what do makes of the state, unless it returns false.
func change(ctx context.Context, configMaps ConfigMaps, do func(*State) bool) (before, after State, err error) {
	for {
		cm, state, err := read(ctx, configMaps)
		if err != nil {
			return State{}, State{}, err
		}
		before, after = state, state
		if !do(&after) {
			return before, before, nil
		}
		encode(&after, cm)
		_, err = configMaps.Update(ctx, cm, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) && pause(ctx, conflictPause) {
			continue
		}
		if err != nil {
			return before, before, fmt.Errorf("circuit breaker: %w", err)
		}
		return before, after, nil
	}
}

func read(ctx context.Context, configMaps ConfigMaps) (*corev1.ConfigMap, State, error) {
	cm, err := configMaps.Get(ctx, Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, State{}, errors.Join(fmt.Errorf("circuit breaker: ConfigMap %q does not exist; apply the manifests again", Name), err)
	}
	if err != nil {
		return nil, State{}, fmt.Errorf("circuit breaker: %w", err)
	}
	state, err := decode(cm)
	if err != nil {
		return nil, State{}, fmt.Errorf("circuit breaker: %w", err)
	}
	return cm, state, nil
}

// pause returns false if ctx ended meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
