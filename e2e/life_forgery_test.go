//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Saying 42 is not ending with it.
func forgedExitCode(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "exit", "code", "1", "file", "42")
	l.expectRestarted(1)
	l.expectKept()
}

// Nor is having said it once, when a sidecar comes anew and finds it.
func staleExitCode(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "file", "name", "exit_code", "content", "42")
	l.killSidecar()
	l.expectSidecarSays("An earlier run of the agent left exit code 42")
	l.expectKept()
}

// Another process that ends with 42, such as an exec session, is not the agent.
func otherProcessExits42(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	if code, out := l.exec("/bin/e2e-agent", "exit", "42"); !strings.Contains(out, "42") && code != 42 {
		t.Fatalf("the session ended with %d: %s", code, out)
	}
	l.expectKept()
	if c := l.status(lifecycle.AgentContainer); c.RestartCount != 0 {
		t.Errorf("the agent was started again: %+v", c)
	}
}
