package integration

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestUpdates shows that only what the user changes is touched: a fleet is not restarted by a re-apply or by a newer
// sidecar.
func TestUpdates(t *testing.T) {
	c := install(t, controlplane.Options{})
	d := agent("alice")
	c.create(t, d)
	stored := func() *appsv1.Deployment {
		now := agent("alice")
		c.get(t, now)
		return now
	}
	sidecar := func(d *appsv1.Deployment) string {
		for _, container := range d.Spec.Template.Spec.Containers {
			if container.Name == "lifecycle-sidecar" {
				return container.Image
			}
		}
		return ""
	}
	unchanged := func(t *testing.T) {
		t.Helper()
		if diff := cmp.Diff(d.Spec.Template, stored().Spec.Template); diff != "" {
			t.Errorf("the agent would be restarted, its template differs (-before +after):\n%s", diff)
		}
	}
	before := sidecar(d)
	if before == "" {
		t.Fatal("no sidecar was injected")
	}

	t.Run("PUT of what the user wrote", func(t *testing.T) {
		if err := c.Client.Update(t.Context(), agent("alice")); err != nil {
			t.Fatal(err)
		}
		unchanged(t)
	})
	t.Run("apply of what the user wrote", func(t *testing.T) {
		if err := c.apply(t, agent("alice")); err != nil {
			t.Fatal(err)
		}
		unchanged(t)
	})

	const newer = "ghcr.io/dexorder/lifecycle-sidecar:v99.0.0"
	policy, err := os.ReadFile(c.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WritePolicy(bytes.Replace(policy, []byte(before), []byte(newer), 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "newer sidecar", func() (bool, error) {
		probe := agent("probe")
		err := c.Client.Create(t.Context(), probe, client.DryRunAll)
		return sidecar(probe) == newer, err
	})
	t.Run("newer sidecar: annotation", func(t *testing.T) {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"note":"x"}}}`))
		if err := c.Client.Patch(t.Context(), agent("alice"), patch); err != nil {
			t.Fatal(err)
		}
		unchanged(t)
	})
	t.Run("newer sidecar: PUT of what the user wrote", func(t *testing.T) {
		if err := c.Client.Update(t.Context(), agent("alice")); err != nil {
			t.Fatal(err)
		}
		unchanged(t)
	})
	t.Run("newer sidecar: change of the template", func(t *testing.T) {
		changed := agent("alice", pod(func(spec *corev1.PodSpec) { spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2" }))
		if err := c.Client.Update(t.Context(), changed); err != nil {
			t.Fatal(err)
		}
		if got := sidecar(stored()); got != newer {
			t.Errorf("sidecar is %q, want the newer one %q", got, newer)
		}
	})
}

// TestRestartRulesGateClosed shows that a cluster which drops container restart rules is noticed.
func TestRestartRulesGateClosed(t *testing.T) {
	c := install(t, controlplane.Options{APIServerFlags: map[string][]string{
		"feature-gates": {"ContainerRestartRules=false,RestartAllContainersOnContainerExits=false"},
	}})
	first := agent("first")
	c.create(t, first)
	if rules := first.Spec.Template.Spec.Containers[0].RestartPolicyRules; rules != nil {
		t.Fatalf("the API server kept restart rules %v; this test needs one that drops them", rules)
	}
	// The server looks at what was stored, a moment later.
	eventually(t, "notice of the dropped rules", func() (bool, error) {
		log, err := os.ReadFile(c.Servers()[0].Log)
		return bytes.Contains(log, []byte("The API server dropped the container restart rules")), err
	})
}
