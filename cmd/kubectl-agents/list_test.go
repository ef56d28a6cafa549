package main

import (
	"strings"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// An agent says when it stops, why it stays, and in short what is wrong with it.
func TestShownEntry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tc := range map[string]struct {
		entry         fleet.Entry
		stops, reason string
		full          []string
	}{
		"about to stop": {
			fleet.Entry{AgentStatus: workload.AgentStatus{State: lifecycle.Idle, StopsAt: now.Add(90 * time.Second), Reason: "quiet", Ready: true}, Asked: true},
			"in 1m30s", "quiet", []string{"IDLE since unknown", "stops:     in 1m30s, at "},
		},
		"overdue":      {fleet.Entry{AgentStatus: workload.AgentStatus{StopsAt: now, Reason: "quiet"}}, "now", "quiet", nil},
		"kept alive":   {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "busy", Ready: true}, Asked: true}, "-", "busy", nil},
		"does not say": {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "who knows", Ready: true}}, "unknown", "who knows", nil},
		"does not run": {fleet.Entry{AgentStatus: workload.AgentStatus{Problem: "OOMKilled", Reason: "Pod p: OOMKilled"}}, "-", "OOMKilled", []string{"problem:   OOMKilled\n", "reason:    Pod p: OOMKilled\n"}},
		"never stops":  {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "busy", StopsAt: now}, NeverStops: "enterprise"}, "never", "busy", []string{"stays:     enterprise\n"}},
		"protected":    {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "busy"}, Protected: "x"}, "-", "busy; it stays: its Deployment is protected: x", []string{"stays:     its Deployment is protected: x\n"}},
		"scaled":       {fleet.Entry{AgentStatus: workload.AgentStatus{Problem: "scaled to 0"}, Scaler: "KEDA"}, "-", "scaled to 0; an autoscaler (KEDA) sets its replicas", []string{"replicas:  an autoscaler (KEDA) sets its replicas\n"}},
		"kept volume":  {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "busy"}, Storage: "kept", StorageProtected: "claim c: x"}, "-", "busy; its storage is protected: claim c: x", []string{"storage:   kept, protected: claim c: x\n"}},
		"other parts": {
			fleet.Entry{SidecarImage: "i:v1", Sidecar: fleet.SidecarOutdated, OtherParts: true, Upgrade: []string{"the environment says when it is idle"}}, "-", "",
			[]string{"sidecar:   i:v1 (other parts outdated)\n", "upgrade:   the environment says when it is idle\n"},
		},
		"another sidecar": {fleet.Entry{SidecarImage: "i:v1", Sidecar: fleet.SidecarOutdated}, "-", "", []string{"sidecar:   i:v1 (outdated)\n"}},
		"hidden escapes":  {fleet.Entry{AgentStatus: workload.AgentStatus{Reason: "a\x1b[31m\nb"}}, "-", "a\x1b[31m\nb", []string{"reason:    a\\x1b[31m"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := stops(&tc.entry, now); got != tc.stops {
				t.Errorf("stops %q, want %q", got, tc.stops)
			}
			if got := shortReason(&tc.entry); got != tc.reason {
				t.Errorf("reason %q, want %q", got, tc.reason)
			}
			var out strings.Builder
			if err := writeStatus(&out, &tc.entry, now); err != nil {
				t.Fatal(err)
			}
			for _, want := range tc.full {
				if !strings.Contains(out.String(), want) {
					t.Errorf("%q is missing in\n%s", want, &out)
				}
			}
		})
	}
}
