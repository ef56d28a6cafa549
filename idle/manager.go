package idle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Errors of a Manager.
var (
	// ErrIdle is what Run returns when the agent is to stop because it is idle.
	ErrIdle = errors.New("the agent is idle")

	// ErrStopping is returned for whatever comes too late.
	ErrStopping = errors.New("the agent is being stopped")

	// ErrSnoozeSpent says that the stop cannot be put off any further.
	ErrSnoozeSpent = errors.New("the stop cannot be put off any further; activity, a trigger or a lease keeps the agent")

	// ErrTooMany says that there are maxKeeps triggers and leases.
	ErrTooMany = fmt.Errorf("there are %d triggers and leases already", maxKeeps)
)

// Bounds.
const (
	maxKeeps = 1000
	maxID    = 253

	// maxReason bounds the reason of a trigger, in bytes. A longer one is cut, since to refuse it would take the trigger
	// from an agent that works.
	maxReason = 1024

	minLease = time.Second
	maxLease = 24 * time.Hour
)

// keep is a trigger, or a lease if it has an end.
type keep struct {
	since  time.Time
	until  time.Time
	reason string
}

// Manager tracks one agent. Its methods are safe for concurrent use.
type Manager struct {
	config Config
	now    func() time.Time

	mu       sync.Mutex
	state    lifecycle.State
	changed  time.Time // of state
	activity time.Time
	source   string
	since    time.Time // activity, or the end of the last keep
	keeps    map[keepKey]keep
	snoozed  time.Time
	warned   time.Time
	wake     chan struct{}
	listen   map[chan Event]struct{}
}

// New returns a Manager whose agent has just been active.
func New(config Config) *Manager {
	m := &Manager{
		config: config, now: time.Now, state: lifecycle.Running, source: "start",
		keeps: map[keepKey]keep{}, wake: make(chan struct{}, 1), listen: map[chan Event]struct{}{},
	}
	m.changed = m.now()
	m.activity, m.since = m.changed, m.changed
	return m
}

// Run watches the clock until ctx ends, or returns ErrIdle when the agent is to stop. From then on its state is
// lifecycle.Shutdown and nothing keeps it any more.
func (m *Manager) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.wake:
		case <-timer.C:
		}
		wait, stop := m.check()
		if stop {
			return ErrIdle
		}
		timer.Reset(wait)
	}
}

// check does what is due, and says when to look again.
func (m *Manager) check() (wait time.Duration, stop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == lifecycle.Shutdown { // by Stop: there is no way back
		return m.config.CheckInterval, false
	}
	now := m.now()
	m.expire(now)
	v := decide(&m.config, m.situation(), now)
	switch {
	case v.stop:
		m.setState(lifecycle.Shutdown, now)
		return 0, true
	case v.warn:
		m.warned = now
		m.setState(lifecycle.Idle, now)
		m.publish(Event{Name: EventWarning, Warning: &Warning{Deadline: wall(v.deadline), SecondsLeft: seconds(v.deadline.Sub(now))}})
	case m.warned.IsZero():
		m.setState(lifecycle.Running, now)
	}
	wait = m.config.CheckInterval
	if !v.next.IsZero() {
		wait = min(wait, v.next.Sub(now))
	}
	if end := m.firstEnd(); !end.IsZero() {
		wait = min(wait, end.Sub(now))
	}
	return max(wait, time.Millisecond), false
}

func (m *Manager) situation() situation {
	return situation{since: m.since, kept: len(m.keeps) > 0, snoozed: m.snoozed, warned: m.warned}
}

// expire ends leases. The work that they stood for went on until then.
func (m *Manager) expire(now time.Time) {
	for key, k := range m.keeps {
		if !k.until.IsZero() && !now.Before(k.until) {
			delete(m.keeps, key)
			if k.until.After(m.since) {
				m.since = k.until
			}
		}
	}
}

func (m *Manager) firstEnd() time.Time {
	var first time.Time
	for _, k := range m.keeps {
		if !k.until.IsZero() && (first.IsZero() || k.until.Before(first)) {
			first = k.until
		}
	}
	return first
}

// change does something under the lock unless the agent is being stopped, and has the clock looked at anew.
func (m *Manager) change(do func(now time.Time) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == lifecycle.Shutdown {
		return ErrStopping
	}
	now := m.now()
	m.expire(now)
	if err := do(now); err != nil {
		return err
	}
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return nil
}

// alive forgets the warning: something real has happened. A snooze stays, which may well end later than the timeout that begins now.
func (m *Manager) alive(now time.Time) {
	m.since, m.warned = now, time.Time{}
	m.setState(lifecycle.Running, now)
}

// RecordActivity says that the agent has just done something. The source is for people.
func (m *Manager) RecordActivity(source string) error {
	return m.change(func(now time.Time) error {
		m.activity, m.source = now, source
		m.alive(now)
		return nil
	})
}

// AddTrigger is Owner.AddTrigger of the owner without a name.
func (m *Manager) AddTrigger(id, reason string) error { return m.Owner("").AddTrigger(id, reason) }

// Lease is Owner.Lease of the owner without a name.
func (m *Manager) Lease(id string, ttl time.Duration) (time.Time, error) {
	return m.Owner("").Lease(id, ttl)
}

// RemoveTrigger is Owner.RemoveTrigger of the owner without a name.
func (m *Manager) RemoveTrigger(id string) error { return m.Owner("").RemoveTrigger(id) }

// UpdateTriggers is Owner.UpdateTriggers of the owner without a name.
func (m *Manager) UpdateTriggers(ids ...string) error { return m.Owner("").UpdateTriggers(ids...) }

func (m *Manager) holds(key keepKey) bool {
	_, found := m.keeps[key]
	return found
}

func (m *Manager) keep(key keepKey, k keep, now time.Time) error {
	before, had := m.keeps[key]
	if !had && len(m.keeps) >= maxKeeps {
		return ErrTooMany
	}
	if had {
		k.since = before.since
	}
	m.keeps[key] = k
	m.alive(now)
	return nil
}

// Triggers returns the ids of the triggers and leases of all owners, sorted.
func (m *Manager) Triggers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.expire(m.now())
	ids := make([]string, 0, len(m.keeps))
	for key := range m.keeps {
		ids = append(ids, key.id)
	}
	slices.Sort(ids)
	return ids
}

// Snooze puts the stop off by d from now, within the bound: the last activity, the timeout and Config.SnoozeMax after it. It
// returns the new deadline, or ErrSnoozeSpent if that would be no later than the old one.
func (m *Manager) Snooze(d time.Duration) (deadline time.Time, granted time.Duration, err error) {
	if d <= 0 {
		return time.Time{}, 0, &InvalidError{"seconds", d.String(), "a positive number"}
	}
	err = m.change(func(now time.Time) error {
		until, most := now.Add(d), m.since.Add(m.config.Timeout+m.config.SnoozeMax)
		if until.After(most) {
			until = most
		}
		if current := decide(&m.config, m.situation(), now).deadline; !until.After(current) {
			return ErrSnoozeSpent
		}
		m.snoozed, m.warned = until, time.Time{}
		deadline, granted = until, until.Sub(now)
		m.setState(lifecycle.Running, now)
		return nil
	})
	return deadline, granted, err
}

// Stop says that the agent is being stopped for another reason than idleness, or held. Nothing is accepted any more.
func (m *Manager) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setState(lifecycle.Shutdown, m.now())
}

func (m *Manager) setState(state lifecycle.State, now time.Time) {
	if m.state == state {
		return
	}
	m.state, m.changed = state, now
	m.publish(Event{Name: EventState, State: &StateChange{State: state, Since: wall(now)}})
}

// InvalidError is about a value that is not accepted.
type InvalidError struct{ Field, Value, Accepted string }

// Error implements error.
func (e *InvalidError) Error() string {
	return fmt.Sprintf("%s: %q is not accepted; accepted is %s", e.Field, e.Value, e.Accepted)
}

// checkName holds ids of triggers and leases, and owners, to what fits into a URL's path and onto a line.
func checkName(field, name string) error {
	printable := func(r rune) bool { return r > ' ' && r < 0x7f && r != '/' }
	if name == "" || len(name) > maxID || strings.ContainsFunc(name, func(r rune) bool { return !printable(r) }) {
		shown := name
		if len(shown) > maxID {
			shown = shown[:maxID]
		}
		return &InvalidError{field, shown, fmt.Sprintf("1 to %d printable ASCII characters without / and space", maxID)}
	}
	return nil
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// wall is a time for people: without its monotonic part, to the millisecond.
func wall(t time.Time) time.Time { return t.Round(0).UTC().Truncate(time.Millisecond) }
