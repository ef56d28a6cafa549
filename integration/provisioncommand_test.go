package integration

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// The commands, as somebody types them.
func testProvisionCommands(t *testing.T, c *cluster) {
	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	run := func(code int, says, stdin, verb string, args ...string) {
		t.Helper()
		cmd := exec.Command(plugin, append([]string{verb, "--kubeconfig", c.plane.Kubeconfig()}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), says) {
			t.Fatalf("%s %s: exit code %d, want %d and %q\n%s", verb, strings.Join(args, " "), got, code, says, out)
		}
	}
	const name = "agent-clerk"
	role := []string{"clerk", "--org", "dexorder", "--env", "test"}
	with := func(more ...string) []string { return append(role[:len(role):len(role)], more...) }

	run(1, "+++ Deployment agent as it would be", "", "provision", with("--diff")...)
	run(1, "error: not confirmed, nothing was changed", "", "provision", role...)
	run(1, "error: not confirmed, nothing was changed", "no\n", "provision", role...)
	if c.namespace(t, name) != nil {
		t.Fatal("it was provisioned all the same")
	}
	run(0, "namespace agent-clerk is provisioned: 13 objects changed", "yes\n", "provision", role...)
	run(0, "Secret api-keys is not there, and the agent goes without it", "", "provision", with("--yes")...)
	run(0, "namespace agent-clerk is as it should be", "", "provision", with("--diff")...)
	run(1, "-        image: ghcr.io/dexorder/agent:v1.0.0", "", "provision", with("--diff", "--image", "ghcr.io/dexorder/agent:v2")...)
	run(1, "error: refused: Deployment agent: ", "", "provision", with("--yes", "--image", "nginx")...)
	run(2, "where the lifecycle webhook should be installed", "", "provision", with("--yes", "-n", "nowhere")...)

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "agent"}}
	replicas := func(want int32) {
		t.Helper()
		c.get(t, d)
		if *d.Spec.Replicas != want {
			t.Errorf("%d replicas, want %d", *d.Spec.Replicas, want)
		}
	}
	run(0, "scaled from 1 to 0", "", "deprovision", "clerk", "--dry-run")
	run(1, "error: not confirmed", "", "deprovision", "clerk")
	replicas(1)
	run(0, "kubectl agents deprovision --undo agent-clerk", "", "deprovision", "clerk", "--yes")
	replicas(0)
	if mark := c.namespace(t, name).Annotations[lifecycle.AnnotationDeprovisioned]; !strings.HasSuffix(mark, " admin") {
		t.Errorf("mark %q, want who did it", mark)
	}
	run(1, "error: refused: namespace agent-clerk was deprovisioned (", "", "provision", with("--yes")...)
	run(0, "scaled to 1", "y\n", "deprovision", "--undo", name)
	replicas(1)
	run(0, "namespace agent-clerk is as it should be", "", "provision", role...)
	run(1, `error: refused: "nobody" is neither the role nor the name`, "", "deprovision", "nobody", "--yes")
}
