//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// TestLife keeps the promises about one agent's end, with a sidecar that asks the kernel how it ended.
func TestLife(t *testing.T) {
	t.Parallel()
	lives(t, "life")
}

// TestLifeByFile keeps them with a sidecar for kernels that do not tell how a process ended.
func TestLifeByFile(t *testing.T) {
	useSidecar(t, "ghcr.io/dexorder/lifecycle-sidecar:e2e-file")
	lives(t, "file")
}

// useSidecar changes the sidecar that new agents get, for the length of the test.
func useSidecar(t *testing.T, image string) {
	t.Helper()
	before := readPolicy(t)
	change := func(ctx context.Context, policy string) {
		t.Helper()
		if err := writePolicy(ctx, policy); err != nil {
			t.Fatal(err)
		}
		eventually(t, reloadTimeout, func(ctx context.Context) error { return policyInForce(ctx, policy) })
	}
	after := regexp.MustCompile(`(?m)^ {2}image: .*`).ReplaceAllString(before, "  image: "+image)
	if after == before {
		t.Fatalf("the policy names no sidecar image other than %s", image)
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
func lives(t *testing.T, prefix string) {
	for _, promise := range []struct {
		name string
		keep func(*testing.T, string)
	}{
		{"idle", idleIsGone},
		{"anonymous", anonymousLeavesNothing},
		{"storage", storageIsKept},
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
	} {
		t.Run(promise.name, func(t *testing.T) {
			t.Parallel()
			promise.keep(t, prefix+"-"+promise.name)
		})
	}
}
