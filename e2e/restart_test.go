//go:build e2e

package e2e

import "testing"

// A rolling restart of the server loses no request.
func TestRollingRestart(t *testing.T) {
	defer keepEvidence(t)
	requests := startTraffic(t)
	if err := restart(t.Context(), serverName); err != nil {
		t.Fatal(err)
	}
	if err := serversRolledOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	requests.goOn(t, 100)
	requests.check(t)
}
