package gateway

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestReadEvents(t *testing.T) {
	var got []string
	lines := 0
	err := readEvents(strings.NewReader("event: state\ndata: {\"a\": 1}\n\n: alive\n\nevent:warning\ndata:x\ndata: y\n\nevent: none\n\ndata: cut off"),
		func() { lines++ }, func(name, data string) error { got = append(got, name+"="+data); return nil })
	if want := []string{`state={"a": 1}`, "warning=x"}; !slices.Equal(got, want) || !errors.Is(err, io.EOF) || lines != 12 {
		t.Errorf("%q after %d lines, %v; want %q", got, lines, err, want)
	}
	err = readEvents(strings.NewReader("data: "+strings.Repeat("x", maxLine+1)+"\n\n"), func() {}, func(string, string) error {
		t.Error("an endless line is an event")
		return nil
	})
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an endless line: %v", err)
	}
}

func TestHear(t *testing.T) {
	var s saying
	for _, tt := range []struct {
		name, data string
		ok         bool
		state      lifecycle.State
		warned     bool
	}{
		{"state", `{"state":"RUNNING","since":"2026-01-02T03:04:05Z"}`, true, lifecycle.Running, false},
		{"state", `{"state":"DELETED","since":"2026-01-02T03:04:05Z"}`, false, lifecycle.Running, false},
		{"state", `nonsense`, false, lifecycle.Running, false},
		{"other", `{}`, false, lifecycle.Running, false},
		{"state", `{"state":"IDLE","since":"2026-01-02T03:04:05Z"}`, true, lifecycle.Idle, false},
		{"warning", `{}`, false, lifecycle.Idle, false},
		{"warning", `{"deadline":"2026-01-02T03:05:05Z"}`, true, lifecycle.Idle, true},
		{"state", `{"state":"RUNNING","since":"2026-01-02T03:04:50Z"}`, true, lifecycle.Running, false},
	} {
		if ok := s.hear(tt.name, tt.data); ok != tt.ok || s.state != tt.state || s.deadline.IsZero() == tt.warned {
			t.Errorf("%s %s: %t, %+v", tt.name, tt.data, ok, s)
		}
	}
}
