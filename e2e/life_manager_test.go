//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
)

// The lifecycle manager warns, stops the agent that does nothing, and the agent is gone.
func managerStopsIdleAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.4"))
	l.expectGone()
}

// An agent with a trigger or a lease does not stop, however short its timeout is.
func triggersKeepAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.5"))
	l.must("PUT", "manager/v1/triggers/cron")
	time.Sleep(40 * time.Second)
	if got := l.must("GET", "manager/v1/status"); !strings.Contains(got, `"RUNNING"`) || !strings.Contains(got, `"id":"cron"`) {
		t.Errorf("status: %s", got)
	}
	l.expectKept()
	l.must("DELETE", "manager/v1/triggers/cron")
	l.expectGone()
}

// A lease keeps the agent for as long as it was taken for, and nobody has to end it.
func leasesKeepAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.5"))
	answer, err := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name + ":8080").
		SubResource("proxy").Suffix("manager/v1/leases").Body([]byte(`{"id": "job-1", "ttlSeconds": 45}`)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("lease: %v: %s", err, answer)
	}
	time.Sleep(40 * time.Second)
	if got := l.must("GET", "manager/v1/status"); !strings.Contains(got, `"RUNNING"`) || !strings.Contains(got, `"id":"job-1"`) {
		t.Errorf("status: %s", got)
	}
	l.expectGone()
}

// The warning comes before the stop, and a snooze moves it.
func warningComesFirst(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.5"))
	var status struct {
		State    string
		Warned   bool
		Deadline time.Time
	}
	read := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(l.must("GET", "manager/v1/status")), &status); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, lifeTimeout, func(context.Context) error {
		read()
		if !status.Warned || status.State != "IDLE" {
			return errors.New("the agent was not warned")
		}
		return nil
	})
	first := status.Deadline
	if left := time.Until(first); left <= 0 {
		t.Errorf("the warning came %s after the stop", -left)
	}
	body := `{"seconds": 50}`
	answer, err := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name + ":8080").
		SubResource("proxy").Suffix("manager/v1/snooze").Body([]byte(body)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("snooze: %v: %s", err, answer)
	}
	read()
	if status.Warned || !status.Deadline.After(first) {
		t.Errorf("after the snooze: %+v, the deadline was %s", status, first)
	}
	time.Sleep(time.Until(first) + 3*time.Second)
	l.expectKept()
	l.expectGone()
}
