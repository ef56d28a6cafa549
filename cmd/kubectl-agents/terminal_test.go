package main

import (
	"bytes"
	"strings"
	"testing"
)

// TestTerminal: whatever a message quotes draws nothing on an operator's terminal.
func TestTerminal(t *testing.T) {
	var out, err bytes.Buffer
	const evil = "\x1b]0;pwned\a\u009b2J"
	if code := run([]string{evil}, streams{strings.NewReader(""), &out, &err}); code != exitNotUnderstood {
		t.Errorf("exit code %d", code)
	}
	if got := out.String() + err.String(); strings.ContainsAny(got, "\x1b\a\u009b") || !strings.Contains(got, "pwned") {
		t.Errorf("an unknown verb is answered with %q", got)
	}
	out.Reset()
	people := streams{nil, &out, nil}.forPeople()
	if _, err := people.out.Write([]byte("agent\t" + evil + "\n")); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "agent\t"+`\x1b]0;pwned\a\u009b2J`+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
