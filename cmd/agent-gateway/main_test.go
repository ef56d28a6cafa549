package main

import (
	"bytes"
	"encoding/json"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestCommandLine(t *testing.T) {
	const serve = "serve --policy p --template t "
	tests := []struct {
		args           string
		code           int
		stdout, stderr string
	}{
		{"", exitUsage, "", "Usage:"},
		{"help", exitOK, "agent-gateway serve --policy FILE", ""},
		{"--help", exitOK, "Usage:", ""},
		{"version", exitOK, runtime.Version(), ""},
		{"version please", exitUsage, "", "takes no arguments"},
		{"sever", exitUsage, "", `"sever" is no command; there are serve, version and help`},
		{"serve --help", exitOK, "-wake-timeout", ""},
		{"serve", exitUsage, "", "--policy is required"},
		{"serve --policy p", exitUsage, "", "--template is required"},
		{serve + "--polcy x", exitUsage, "", "flag provided but not defined: -polcy"},
		{serve + "more", exitUsage, "", `unexpected arguments ["more"]`},
		{serve + "--audience=", exitUsage, "", "--audience is required"},
		{serve + "--allow=", exitUsage, "", "empty name"},
		{serve + "--tls-cert c", exitUsage, "", "--tls-cert and --tls-key: both or neither"},
		{serve + "--default-user-type gold", exitUsage, "", `user type "gold" is not one of`},
		{serve + "--wake-timeout 0s", exitUsage, "", "--wake-timeout 0s: must be positive"},
		{serve + "--drain -1s", exitUsage, "", "must not be negative"},
		{serve + "--user-rate free=1", exitUsage, "", "must be TYPE=PER_SECOND,BURST"},
		{serve + "--wake-rate gold=1,1", exitUsage, "", `user type "gold" is not one of`},
		{serve + "--wake-rate free=NaN,1", exitUsage, "", "both positive"},
		{serve + "--max-held 0", exitUsage, "", "must be positive"},
		{serve + "--max-connections 0", exitUsage, "", "must be positive"},
		{serve + "--user-connections free=0", exitUsage, "", "must be TYPE=NUMBER"},
		{serve + "--user-connections gold=1", exitUsage, "", `user type "gold" is not one of`},
		{serve + "--agent-header-timeout -1s", exitUsage, "", "must not be negative"},
		{serve + "--nats-url http://x", exitUsage, "", "must be nats://"},
		{serve + "--nats-url nats://x --nats-user u", exitUsage, "", "assword"},
		{serve + "--log-format xml", exitUsage, "", "there are json and text"},
		{serve + "--kubeconfig /does/not/exist", exitError, "", "/does/not/exist"},
	}
	for _, tt := range tests {
		t.Run(tt.args, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := run(strings.Fields(tt.args), &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for what, is := range map[string][2]string{"stdout": {stdout.String(), tt.stdout}, "stderr": {stderr.String(), tt.stderr}} {
				if got, want := is[0], is[1]; !strings.Contains(got, want) || (want == "") != (got == "") {
					t.Errorf("%s %q, want %q", what, got, want)
				}
			}
		})
	}
}

// In a Pod, 127.0.0.1 is any client of a proxy in that Pod.
func TestLoopbackInPod(t *testing.T) {
	for _, name := range append([]string{""}, podVariables...) {
		t.Run(name, func(t *testing.T) {
			for _, variable := range podVariables {
				t.Setenv(variable, "")
			}
			want := ""
			if name != "" {
				t.Setenv(name, "10.0.0.1")
				want = "--loopback-without-token: is refused in a Pod"
			}
			var stderr bytes.Buffer
			_, err := parseFlags(strings.Fields("--policy p --template t --loopback-without-token"), io.Discard, &stderr)
			if (err != nil) != (want != "") || !strings.Contains(stderr.String(), want) {
				t.Errorf("%v, %q; want %q", err, stderr.String(), want)
			}
			if _, err := parseFlags(strings.Fields("--policy p --template t"), io.Discard, &stderr); err != nil {
				t.Errorf("without the flag: %v", err)
			}
		})
	}
}

func TestRates(t *testing.T) {
	var stdout, stderr bytes.Buffer
	f, err := parseFlags(strings.Fields("--policy p --template t --user-rate free=0.5,3 --wake-rate paid=7,8 --allow a --allow b --user-connections paid=9"), &stdout, &stderr)
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	if got := f.limits.Requests[lifecycle.Free]; got != (gateway.Rate{PerSecond: 0.5, Burst: 3}) {
		t.Errorf("requests of free users: %v", got)
	}
	if got := f.limits.Wakes[lifecycle.Paid]; got != (gateway.Rate{PerSecond: 7, Burst: 8}) {
		t.Errorf("wakes of paid users: %v", got)
	}
	if got := f.limits.Requests[lifecycle.Paid]; got != gateway.DefaultLimits().Requests[lifecycle.Paid] {
		t.Errorf("requests of paid users: %v", got)
	}
	if c := f.limits.Connections; c[lifecycle.Paid] != 9 || c[lifecycle.Free] != gateway.DefaultLimits().Connections[lifecycle.Free] {
		t.Errorf("connections: %v", c)
	}
	if strings.Join(f.allow, " ") != "a b" {
		t.Errorf("allowed: %q", f.allow)
	}
}

func TestEvent(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n := gateway.Notice{Namespace: "dexorder-agents", Deployment: "agent-a", UID: "u", UserType: lifecycle.Free, Pod: "p"}
	for _, tt := range []struct {
		change func(*gateway.Notice)
		want   string
	}{
		{func(n *gateway.Notice) { n.Type, n.Since = gateway.NoticeIdle, at }, "agent.idle/u/2026-01-02T03:04:05Z"},
		{func(n *gateway.Notice) { n.Type, n.Deadline = gateway.NoticeWarning, at }, "agent.warning/u/2026-01-02T03:04:05Z"},
	} {
		n := n
		tt.change(&n)
		e := event(n, at.Add(time.Hour))
		if e.ID != tt.want {
			t.Errorf("id %s, want %s", e.ID, tt.want)
		}
		if _, err := json.Marshal(e); err != nil {
			t.Error(err)
		}
	}
}

func TestTiers(t *testing.T) {
	policy, err := newTiers("../../policy/v1alpha1/example.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, userType := range lifecycle.UserTypes() {
		if got := policy.DeletesStorage(userType); got != (userType == lifecycle.Anonymous) {
			t.Errorf("%s deletes storage: %t", userType, got)
		}
		if got := policy.StopsWhenIdle(userType); got != (userType != lifecycle.Enterprise) {
			t.Errorf("%s stops when idle: %t", userType, got)
		}
	}
	if _, err := newTiers("/does/not/exist", nil); err == nil {
		t.Error("a missing policy is no error")
	}
}
