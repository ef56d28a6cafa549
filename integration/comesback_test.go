package integration

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// What was deprovisioned, reaped and restored is still stopped and marked. Each command names the next one that somebody needs.
func testDeprovisionedComesBack(t *testing.T, c *archives) {
	const name = "agent-returner"
	labels := map[string]string{"app": "returner"}
	agent := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "agent", Annotations: map[string]string{lifecycle.AnnotationReplicasBefore: "1"}},
		Spec: appsv1.DeploymentSpec{Replicas: ptr[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: restrictedPod(),
		}},
	}
	ns := c.role(t, name, agent)
	ns.Labels[lifecycle.LabelAgentRole] = "returner"
	ns.Annotations[lifecycle.AnnotationDeprovisioned] = "2026-01-02T03:04:05Z somebody"
	if err := c.Update(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	c.make(t, policyInForce(t))
	c.save(t, ns, keepFor)
	c.reap(t, ns)

	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.Command(plugin, append(args, "--kubeconfig", c.plane.Kubeconfig())...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Fatalf("%v: exit code %d, want %d\n%s", args, got, code, out)
		}
		return string(out)
	}
	for _, by := range []string{"returner", name} {
		if out := run(1, "deprovision", "--undo", by); !strings.Contains(out, "is neither the role nor the name") ||
			!strings.Contains(out, "namespace agent-returner was reaped, and is kept until ") || !strings.Contains(out, ": kubectl agents restore agent-returner\n") {
			t.Errorf("it does not lead to the restore:\n%s", out)
		}
	}
	const still = "It is still deprovisioned (2026-01-02T03:04:05Z somebody), and what ran there is stopped. " +
		"Start it with: kubectl agents deprovision --undo agent-returner\nElse: The reaper deletes it again, at the earliest at "
	if out := run(0, "restore", name, "--dry-run"); !strings.Contains(out, still) {
		t.Errorf("a dry run says:\n%s", out)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(ns), &corev1.Namespace{}); !apierrors.IsNotFound(err) {
		t.Errorf("a dry run made the namespace: %v", err)
	}
	out := run(0, "restore", name)
	_, at, found := strings.Cut(out, still)
	at, _, _ = strings.Cut(at, " ")
	if earliest, err := time.Parse(time.RFC3339, at); !found || err != nil || time.Until(earliest) < 58*time.Minute || time.Until(earliest) > time.Hour+2*time.Minute {
		t.Errorf("the restore says %v:\n%s", err, out)
	}
	if out := run(0, "deprovision", "--undo", "returner", "--yes"); !strings.Contains(out, "to be scaled to 1") {
		t.Errorf("got:\n%s", out)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(agent), agent); err != nil || *agent.Spec.Replicas != 1 {
		t.Errorf("the agent has %v replicas, %v", agent.Spec.Replicas, err)
	}
	if out := run(0, "restore", name); strings.Contains(out, "still deprovisioned") || !strings.Contains(out, "Unless something runs there: The reaper deletes it again, at the earliest at ") {
		t.Errorf("once it was taken back, the restore says:\n%s", out)
	}
}
