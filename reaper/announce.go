package reaper

import (
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// EventType says what has happened.
type EventType string

// The types of events.
const (
	NamespaceCreated   EventType = "namespace.created"
	NamespaceActive    EventType = "namespace.active"
	NamespaceUnhealthy EventType = "namespace.unhealthy"
	NamespaceIdle      EventType = "namespace.idle"
	NamespaceMarked    EventType = "namespace.marked"
	NamespaceUnmarked  EventType = "namespace.unmarked"
	NamespaceReaping   EventType = "namespace.reaping"
	NamespaceProtected EventType = "namespace.protected"
	NamespaceReaped    EventType = "namespace.reaped"
	NamespaceStuck     EventType = "namespace.stuck"
	NamespaceDrifted   EventType = "namespace.drifted"

	AgentCreated  EventType = "agent.created"
	AgentRunning  EventType = "agent.running"
	AgentShutdown EventType = "agent.shutdown"
	AgentDeleted  EventType = "agent.deleted"

	// AgentReaped says that the reaper deleted an agent that no sidecar had deleted.
	AgentReaped EventType = "agent.reaped"

	// ObjectReaped is for what is neither a namespace nor an agent: claims and leftovers.
	ObjectReaped EventType = "object.reaped"

	// CapExceeded says that a pass deleted nothing, because it would have deleted too much.
	CapExceeded EventType = "reaper.cap-exceeded"
)

// Event is something that has happened to a namespace, an agent, or the reaper itself.
type Event struct {
	Type EventType

	// ID is the same whenever the same thing is told again.
	ID   string
	Time time.Time

	// Kind, Namespace, Name and UID say of which object. Namespace is empty for a Namespace.
	Kind, Namespace, Name string
	UID                   types.UID

	// Reason says why, for people.
	Reason string

	// Role, Org and Environment are a role namespace's labels.
	Role, Org, Environment string

	// LastActivity is a role namespace's. HeldBy says what holds one that is stuck.
	LastActivity time.Time
	HeldBy       []string

	// Drift says how a namespace differs from its role's template, in NamespaceDrifted.
	Drift []string

	// UserType and Pod are an agent's; ExitCode is 42 in AgentShutdown.
	UserType, Pod string
	ExitCode      int

	// Candidates is how much of Name a pass would have deleted, Allowed how much it may, Total how much there is, in CapExceeded.
	Candidates, Allowed, Total int
}

// Announcer tells others what has happened. It must not block.
type Announcer interface {
	Announce(e Event)
}

// announcedFor is how far back a reaper that begins tells what is so: longer than two of them are apart, and within the time for
// which a repeated event is known to be one.
const announcedFor = time.Hour

func eventID(uid types.UID, t EventType, at time.Time) string {
	id := string(uid) + "/" + string(t)
	if !at.IsZero() {
		id += "/" + at.UTC().Format(time.RFC3339)
	}
	return id
}

func namespaceEvent(t EventType, n *namespace, at time.Time, reason string) Event {
	active, _ := lastActivity(n, at)
	transition := at
	if t == NamespaceCreated || t == NamespaceReaped { // once in its life
		transition = time.Time{}
	}
	return Event{
		Type: t, ID: eventID(n.uid, t, transition), Time: at, Kind: "Namespace", Name: n.name, UID: n.uid, Reason: reason,
		Role: n.labels[lifecycle.LabelAgentRole], Org: n.labels[lifecycle.LabelOrg], Environment: n.labels[lifecycle.LabelEnvironment],
		LastActivity: active, HeldBy: n.heldBy,
	}
}

// phaseEvents are the events of phases that people and programs wait for.
func phaseEvent(p Phase) (EventType, bool) {
	t, has := map[Phase]EventType{
		Active: NamespaceActive, Unhealthy: NamespaceUnhealthy, Idle: NamespaceIdle, Marked: NamespaceMarked, Protected: NamespaceProtected,
	}[p]
	return t, has
}

// transitions returns the events of agents that a change in the cluster means. uid is that of the Deployment which a Pod names.
func transitions(before, after record, uid func(namespace, deployment string) types.UID, now time.Time) []Event {
	var events []Event
	switch r := after.(type) {
	case *workload:
		if before == nil && isAgent(r) {
			events = append(events, agentEvent(AgentCreated, r, r.created))
		}
	case *pod:
		was, _ := before.(*pod)
		if was != nil && was.uid != r.uid {
			was = nil
		}
		of := uid(r.namespace, r.deployment)
		if of == "" {
			break // it is no agent's
		}
		if r.ready && (was == nil || !was.ready) {
			events = append(events, podEvent(AgentRunning, r, of, r.readyAt))
		}
		if r.ended != nil && (was == nil || was.ended == nil) {
			e := podEvent(AgentShutdown, r, of, r.ended.finished)
			e.ExitCode = lifecycle.ExitIdle
			events = append(events, e)
		}
	case nil:
		if w, is := before.(*workload); is && isAgent(w) {
			events = append(events, agentEvent(AgentDeleted, w, now))
		}
	}
	return events
}

func isAgent(w *workload) bool {
	return w.kind == "Deployment" && w.labels[lifecycle.LabelDeployment] == w.name
}

func agentEvent(t EventType, w *workload, at time.Time) Event {
	return Event{
		Type: t, ID: eventID(w.uid, t, time.Time{}), Time: at, Kind: "Deployment", Namespace: w.namespace, Name: w.name, UID: w.uid,
		UserType: w.labels[lifecycle.LabelUserType],
	}
}

func podEvent(t EventType, p *pod, deployment types.UID, at time.Time) Event {
	return Event{
		Type: t, ID: eventID(p.uid, t, time.Time{}), Time: at, Kind: "Deployment", Namespace: p.namespace, Name: p.deployment, UID: deployment,
		UserType: p.userType, Pod: p.name,
	}
}

// reapedEvent is for what the reaper deleted that is no namespace.
func reapedEvent(d *Decision, now time.Time) Event {
	t := ObjectReaped
	if d.Kind == "Deployment" {
		t = AgentReaped
	}
	return Event{
		Type: t, ID: eventID(d.uid, t, time.Time{}), Time: now, Kind: d.Kind, Namespace: d.Namespace, Name: d.Name, UID: d.uid, Reason: d.Reason,
	}
}
