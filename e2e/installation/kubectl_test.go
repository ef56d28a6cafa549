//go:build e2e

package installation

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestKubectl: what kubectl has installed it removes again, and no agent notices, by the kustomization that was applied
// and by the one for removal alike.
func TestKubectl(t *testing.T) {
	clean(t)
	current.applyKustomization(t)
	startFleet(t)
	before := fleet(t)

	for range 2 { // the second one finds nothing of the installation that could refuse it
		code, said := kubectl(t, "delete", "-k", current.kustomization(t), "--ignore-not-found")
		if code != 1 || strings.Count(said, "Error from server") != 2 ||
			!strings.Contains(said, `namespace "dexorder-agents" stays`) ||
			!strings.Contains(said, `service account "agent-lifecycle" of namespace "dexorder-agents" stays`) {
			t.Fatalf("kubectl delete -k: exit code %d, want 1 and that the namespace of agents and their account stay:\n%s", code, said)
		}
		expectRemoved(t)
		expectUntouched(t, before)
	}
	createAgentWithClaim(t, newAgent(agentsNamespace, "agent-after", lifecycle.Free))
	awaitRunning(t)
	before = fleet(t)
	expectEndedAtRest(t, "agent-anonymous")

	current.applyKustomization(t)
	expectGone(t, "agent-anonymous")
	delete(before, agentsNamespace+"/agent-anonymous")
	expectUntouched(t, before)

	for range 2 { // it may be repeated
		mustKubectl(t, "delete", "-k", filepath.Join(current.manifests, "removal"), "--ignore-not-found")
	}
	expectRemoved(t)
	expectUntouched(t, before)

	// Helm takes over what kubectl has left, with a namespace for its release that it makes itself.
	installChart(t, "--namespace", systemNamespace, "--create-namespace", "--take-ownership")
	expectUntouched(t, before)
}
