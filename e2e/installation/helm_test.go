//go:build e2e

package installation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	release = "agent-lifecycle"
	chart   = "../../charts/agent-lifecycle"
)

// installChart installs the chart with the images to test, and waits until its servers serve.
func installChart(t *testing.T, flags ...string) {
	t.Helper()
	defer took(t, "installation by helm", time.Now())
	registry, tag := "", ""
	for _, image := range current.images {
		name, of, _ := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
		if name == serverName {
			registry, tag = image[:strings.LastIndex(image, "/")], of
		}
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte(current.policy(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	mustHelm(t, append([]string{"upgrade", "--install", release, chart, "--wait",
		"--values", filepath.Join(chart, "values-dev.yaml"), "--set-file", "policy=" + policy,
		"--set-string", "image.registry=" + registry, "--set-string", "image.tag=" + tag}, flags...)...)
	awaitAdmission(t)
}

// TestHelm: what helm has installed it removes again, and no agent notices; and it installs again over what was left.
func TestHelm(t *testing.T) {
	clean(t)
	installChart(t)
	startFleet(t)
	before := fleet(t)
	installChart(t) // an upgrade to the same is none
	expectUntouched(t, before)

	mustHelm(t, "uninstall", release, "--wait")
	expectRemoved(t)
	expectUntouched(t, before)
	createAgentWithClaim(t, newAgent(agentsNamespace, "agent-after", lifecycle.Free))
	awaitRunning(t)
	before = fleet(t)
	expectEndedAtRest(t, "agent-anonymous")

	installChart(t)
	expectGone(t, "agent-anonymous")
	delete(before, agentsNamespace+"/agent-anonymous")
	expectUntouched(t, before)
}
