package events

import (
	"testing"
	"time"
)

func TestID(t *testing.T) {
	since := start.Add(123 * time.Millisecond)
	later := start.Add(time.Hour)
	namespace := NamespaceData{Namespace: "agent-ceo", UID: "u1", Since: since}
	agent := AgentData{Namespace: "dexorder-agents", Deployment: "a", UID: "u2", Time: since}
	for _, tt := range []struct {
		name string
		got  Event
		want string
	}{
		{"a transition", Namespace("/a", NamespaceIdle, namespace, start), "namespace.idle/u1/2026-01-02T03:04:05Z"},
		{"the same, noticed later by another", Namespace("/b", NamespaceIdle, NamespaceData{
			Namespace: "agent-ceo", UID: "u1", Since: start.In(time.FixedZone("", 3600)), Reason: "seen again",
		}, later), "namespace.idle/u1/2026-01-02T03:04:05Z"},
		{"once in a life", Namespace("/a", NamespaceReaped, namespace, start), "namespace.reaped/u1"},
		{"since nobody knows when", Namespace("/a", NamespaceIdle, NamespaceData{UID: "u1"}, later), "namespace.idle/u1/2026-01-02T04:04:05Z"},
		{"an agent's start", Agent("/a", AgentRunning, agent, later), "agent.running/u2/2026-01-02T03:04:05Z"},
		{"an agent's warning", Agent("/a", AgentWarning, AgentData{UID: "u2", Time: later, Deadline: since}, later), "agent.warning/u2/2026-01-02T03:04:05Z"},
		{"an agent's end", Agent("/a", AgentDeleted, agent, later), "agent.deleted/u2"},
		{"a cap", Cap("/a", CapData{Kind: "Namespace", Since: since}, later), "reaper.cap-exceeded/Namespace/2026-01-02T03:04:05Z"},
	} {
		if tt.got.ID != tt.want {
			t.Errorf("%s: id %q, want %q", tt.name, tt.got.ID, tt.want)
		}
	}
}
