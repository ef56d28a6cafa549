//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// byFile is the sidecar for kernels that do not tell how a process ended. The one that agents get otherwise asks the kernel.
const byFile = "ghcr.io/dexorder/lifecycle-sidecar:e2e-file"

// TestLife keeps the promises about one agent's end, with a sidecar that asks the kernel how it ended.
func TestLife(t *testing.T) {
	t.Parallel()
	lives(t, "pidfd")
}

// TestLifeByFile keeps them with the other sidecar.
func TestLifeByFile(t *testing.T) {
	useSidecar(t, byFile)
	lives(t, "file")
}

// inBothModes bears agents with one sidecar and then with the other, for tests that disturb the whole cluster: once for both.
// The names of the agents begin with the mode.
func inBothModes(t *testing.T, bear func(mode string)) {
	t.Helper()
	bear("pidfd")
	useSidecar(t, byFile)
	bear("file")
}

// useSidecar changes the sidecar that new agents get, for the length of the test.
func useSidecar(t *testing.T, image string) {
	t.Helper()
	setPolicy(t, `(?m)^ {2}image: .*`, "  image: "+image)
}

// setPolicy replaces a line of the policy, for the length of the test.
func setPolicy(t *testing.T, line, with string) {
	t.Helper()
	before := readPolicy(t)
	change := func(ctx context.Context, policy string) {
		t.Helper()
		if err := writePolicy(ctx, policy); err != nil {
			t.Fatal(err)
		}
		eventually(t, reloadTimeout, func(ctx context.Context) error { return policyInForce(ctx, policy) })
	}
	after := regexp.MustCompile(line).ReplaceAllString(before, with)
	if after == before {
		t.Fatalf("the policy has no line %s other than %q", line, with)
	}
	t.Cleanup(func() { change(context.WithoutCancel(t.Context()), before) })
	change(t.Context(), after)
}

// policyInForce is nil when every server goes by the policy.
func policyInForce(ctx context.Context, policy string) error {
	pods, err := servers(ctx)
	if err != nil {
		return err
	}
	want := fmt.Sprintf("agent_lifecycle_policy_info{hash=%q} 1", v1alpha1.Hash([]byte(policy)))
	for i := range pods {
		body, err := ask(ctx, pods[i].Name, "metrics", "")
		if err != nil {
			return err
		}
		if !strings.Contains(body, want) {
			return fmt.Errorf("server %s goes by another policy", pods[i].Name)
		}
	}
	return nil
}

// lives are the promises that hold whichever way the sidecar learns of an exit. Agents have names of their own.
func lives(t *testing.T, mode string) {
	for _, promise := range []struct {
		name string
		keep func(*testing.T, string)
	}{
		{"mode", sidecarGoesBy(mode)},
		{"idle", idleIsGone},
		{"anonymous", anonymousLeavesNothing},
		{"storage-free", storageIsKept(lifecycle.Free)},
		{"storage-paid", storageIsKept(lifecycle.Paid)},
		{"exit-0", crashIsRestarted(0)},
		{"exit-1", crashIsRestarted(1)},
		{"oom", outOfMemoryIsRestarted},
		{"sigkill", signalIsRestarted(9, 137)},
		{"sigterm", signalIsRestarted(15, 0)},
		{"forged", forgedExitCode},
		{"stale", staleExitCode},
		{"exec", otherProcessExits42},
		{"enterprise", enterpriseStays},
		{"raise", raiseKeepsStorage},
		{"too-soon", tooSoonGetsFreshPod},
		{"sidecar-before", sidecarKilledBefore},
		{"sidecar-during", sidecarKilledDuring},
		{"sidecar-after", sidecarKilledAfter},
		{"rollout", rolloutIsNotIdleness},
		{"manager", managerStopsIdleAgent},
		{"triggers", triggersKeepAgent},
		{"leases", leasesKeepAgent},
		{"warning", warningComesFirst},
		{"drain", drainDoesNotWait},
		{"apply-during", applyDuringDeletionIsRefused},
	} {
		t.Run(promise.name, func(t *testing.T) {
			t.Parallel()
			promise.keep(t, mode+"-"+promise.name)
		})
	}
}
