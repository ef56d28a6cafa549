//go:build e2e

package e2e

import (
	"fmt"
	"testing"
)

// A crash, or the end of all work, is no idleness: the kubelet starts the agent again.
func crashIsRestarted(code int) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		l := bear(t, name)
		l.exit(code)
		l.expectRestarted(int32(code))
		l.expectKept()
	}
}

func outOfMemoryIsRestarted(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "oom")
	l.expectRestarted(137)
	l.expectKept()
}

func signalIsRestarted(signal int, wantCode int32) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		l := bear(t, name)
		l.awaitAge()
		_, _ = l.call("POST", "kill", "signal", fmt.Sprint(signal)) // the answer may not get out any more
		l.expectRestarted(wantCode)
		l.expectKept()
	}
}
