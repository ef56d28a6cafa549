//go:build e2e

package installation

import "testing"

// TestUpgrade: who upgrades from the version before by kubectl restarts no agent and loses no request. Agents that were
// there before are agents of the new version: they go when they are idle.
func TestUpgrade(t *testing.T) {
	clean(t)
	previous.applyKustomization(t)
	startFleet(t)
	before := fleet(t)
	check := startTraffic(t)
	current.applyKustomization(t)
	check()
	expectUntouched(t, before)
	endIdle(t, "agent-anonymous")
	expectGone(t, "agent-anonymous")
	delete(before, agentsNamespace+"/agent-anonymous")
	expectUntouched(t, before)
}
