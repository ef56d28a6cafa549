package idle

import (
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Names of events.
const (
	EventState   = "state"
	EventWarning = "warning"
)

// Event is something that subscribers are told.
type Event struct {
	Name string

	// State is set for EventState, Warning for EventWarning.
	State   *StateChange
	Warning *Warning
}

// StateChange says which state the agent is in.
type StateChange struct {
	State lifecycle.State `json:"state"`
	Since time.Time       `json:"since"`
}

// Warning says that the agent will stop.
type Warning struct {
	Deadline    time.Time `json:"deadline"`
	SecondsLeft float64   `json:"secondsLeft"`
}

// maxBacklog is how many events a subscriber may be behind.
const maxBacklog = 32

// Subscribe returns the events from now on, the present state first and the warning that stands, if one does, and a function that ends
// them. A subscriber that does not keep up loses the oldest.
func (m *Manager) Subscribe() (events <-chan Event, cancel func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := make(chan Event, maxBacklog)
	c <- Event{Name: EventState, State: &StateChange{State: m.state, Since: wall(m.changed)}}
	if m.state == lifecycle.Idle {
		now := m.now()
		if deadline := decide(&m.config, m.situation(), now).deadline; !deadline.IsZero() {
			c <- Event{Name: EventWarning, Warning: &Warning{Deadline: wall(deadline), SecondsLeft: seconds(deadline.Sub(now))}}
		}
	}
	m.listen[c] = struct{}{}
	return c, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.listen, c)
	}
}

// OnWarning calls f, in a goroutine of its own, for every warning until cancel is called.
func (m *Manager) OnWarning(f func(Warning)) (cancel func()) {
	events, unsubscribe := m.Subscribe()
	done := make(chan struct{})
	go func() {
		for {
			select {
			case e := <-events:
				if e.Warning != nil {
					f(*e.Warning)
				}
			case <-done:
				return
			}
		}
	}()
	return func() { unsubscribe(); close(done) }
}

// publish is called under the lock.
func (m *Manager) publish(e Event) {
	for c := range m.listen {
		for sent := false; !sent; {
			select {
			case c <- e:
				sent = true
			default:
				select {
				case <-c:
				default:
				}
			}
		}
	}
}
