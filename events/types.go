package events

import "slices"

// Type says what happened. After the prefix it is the NATS subject.
type Type string

// What happens to a role agent's namespace. Data is NamespaceData.
const (
	// NamespaceCreated is published once in the namespace's life, when it is first seen.
	NamespaceCreated Type = "namespace.created"

	// NamespaceActive says that a Pod runs or starts there after there was none, or that the agent is healthy again.
	NamespaceActive Type = "namespace.active"

	// NamespaceUnhealthy says that an agent is wanted there and does not work. Reason says what is wrong.
	NamespaceUnhealthy Type = "namespace.unhealthy"

	// NamespaceIdle says that nothing runs there any more.
	NamespaceIdle Type = "namespace.idle"

	// NamespaceKept says that the namespace would be reaped and is not. Reason says what protects it.
	NamespaceKept Type = "namespace.kept"

	// NamespaceMarked says that a later pass will reap the namespace; until then it takes no new Pods.
	NamespaceMarked Type = "namespace.marked"

	// NamespaceUnmarked says that a mark was taken back. Reason says what was found alive.
	NamespaceUnmarked Type = "namespace.unmarked"

	// NamespaceReaping says that the deletion of what is in the namespace has begun. There is no way back.
	NamespaceReaping Type = "namespace.reaping"

	// NamespaceReaped is published once in the namespace's life, when its deletion was accepted after that of all that was in it.
	NamespaceReaped Type = "namespace.reaped"

	// NamespaceStuck says that the namespace is being deleted and does not go. Details are the finalizers that hold it.
	NamespaceStuck Type = "namespace.stuck"

	// NamespaceDrift says that the namespace differs from its role's template. Details are the differences.
	NamespaceDrift Type = "namespace.drift"
)

// What happens to an agent. Data is AgentData.
const (
	// AgentCreated is published once in the life of the agent's Deployment.
	AgentCreated Type = "agent.created"

	// AgentRunning says that the agent's Pod is ready.
	AgentRunning Type = "agent.running"

	// AgentIdle says that nothing keeps the agent alive any more, as the agent itself says.
	AgentIdle Type = "agent.idle"

	// AgentWarning says that the agent stops at its Deadline if nothing happens, as the agent itself says.
	AgentWarning Type = "agent.warning"

	// AgentShutdown says that the agent has ended because it was idle, with exit code 42.
	AgentShutdown Type = "agent.shutdown"

	// AgentDeleted is published once in the life of the agent's Deployment, when it is gone.
	AgentDeleted Type = "agent.deleted"
)

// ReaperCapExceeded says that a pass of the reaper would have deleted more than the policy allows, and deleted nothing of
// that kind. Data is CapData.
const ReaperCapExceeded Type = "reaper.cap-exceeded"

// What happens to the circuit breaker. Data is BreakerData.
const (
	// BreakerOpened says that nothing is deleted any more: too many agents ended at once, or an operator has opened
	// the breaker. Reason says why, and by is the user who did it; empty if none did.
	BreakerOpened Type = "breaker.opened"

	// BreakerClosed says that what is idle is deleted again. By is who has released the breaker; it is absent if the
	// breaker closed by itself, and then reason says why.
	BreakerClosed Type = "breaker.closed"
)

// Types returns every type.
func Types() []Type {
	return []Type{
		NamespaceCreated, NamespaceActive, NamespaceUnhealthy, NamespaceIdle, NamespaceKept, NamespaceMarked,
		NamespaceUnmarked, NamespaceReaping, NamespaceReaped, NamespaceStuck, NamespaceDrift,
		AgentCreated, AgentRunning, AgentIdle, AgentWarning, AgentShutdown, AgentDeleted,
		ReaperCapExceeded, BreakerOpened, BreakerClosed,
	}
}

// once tells the types of which an object has one event in its life.
func (t Type) once() bool {
	return slices.Contains([]Type{NamespaceCreated, NamespaceReaped, AgentCreated, AgentDeleted}, t)
}
