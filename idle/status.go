package idle

import (
	"maps"
	"slices"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Status is what is known of an agent.
type Status struct {
	State              lifecycle.State `json:"state"`
	Since              time.Time       `json:"since"`
	UserType           string          `json:"userType"`
	IdleShutdown       bool            `json:"idleShutdown"`
	IdleTimeoutSeconds float64         `json:"idleTimeoutSeconds"`

	// Deadline is when the agent stops if nothing happens; nil if something keeps it alive.
	Deadline *time.Time `json:"deadline"`

	Warned       bool     `json:"warned"`
	LastActivity Activity `json:"lastActivity"`
	Snooze       *Snooze  `json:"snooze,omitempty"`

	// KeptAliveBy says what keeps the agent alive, and since when.
	KeptAliveBy []Keeper `json:"keptAliveBy"`
}

// Activity is the last one.
type Activity struct {
	Source string    `json:"source"`
	At     time.Time `json:"at"`
}

// Snooze is a stop that was put off.
type Snooze struct {
	Until       time.Time `json:"until"`
	LeftSeconds float64   `json:"leftSeconds"`
}

// Keeper is something that keeps an agent alive.
type Keeper struct {
	// Kind is trigger, lease, snooze, activity or policy.
	Kind string `json:"kind"`
	ID   string `json:"id,omitempty"`

	// Owner holds the trigger or lease; empty where its client named none.
	Owner string `json:"owner,omitempty"`

	Reason string     `json:"reason,omitempty"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty"`
}

// Status returns what is known of the agent now.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if m.state != lifecycle.Shutdown {
		m.expire(now)
	}
	s := Status{
		State: m.state, Since: wall(m.changed), UserType: m.config.UserType, IdleShutdown: m.config.Enabled,
		IdleTimeoutSeconds: m.config.Timeout.Seconds(), Warned: !m.warned.IsZero(),
		LastActivity: Activity{m.source, wall(m.activity)}, KeptAliveBy: m.keepers(now),
	}
	if d := decide(&m.config, m.situation(), now).deadline; !d.IsZero() && m.state != lifecycle.Shutdown {
		s.Deadline = new(wall(d))
	}
	if m.snoozed.After(now) {
		s.Snooze = &Snooze{wall(m.snoozed), seconds(m.snoozed.Sub(now))}
	}
	return s
}

func (m *Manager) keepers(now time.Time) []Keeper {
	list := []Keeper{}
	if m.state == lifecycle.Shutdown {
		return list
	}
	if !m.config.Enabled {
		list = append(list, Keeper{Kind: "policy", Reason: "idle shutdown is off", Since: wall(m.changed)})
	}
	for _, key := range slices.SortedFunc(maps.Keys(m.keeps), compareKeys) {
		k := m.keeps[key]
		keeper := Keeper{Kind: "trigger", ID: key.id, Owner: key.owner, Reason: k.reason, Since: wall(k.since)}
		if !k.until.IsZero() {
			keeper.Kind, keeper.Until = "lease", new(wall(k.until))
		}
		list = append(list, keeper)
	}
	if m.snoozed.After(now) {
		list = append(list, Keeper{Kind: "snooze", Since: wall(m.since), Until: new(wall(m.snoozed))})
	}
	if until := m.since.Add(m.config.Timeout); until.After(now) {
		list = append(list, Keeper{Kind: "activity", ID: m.source, Since: wall(m.since), Until: new(wall(until))})
	}
	return list
}
