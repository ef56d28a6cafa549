package integration

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// The commands, as somebody types them.
func testProvisionCommands(t *testing.T, c *cluster) {
	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v\n%s", err, out)
	}
	run := func(code int, says, stdin, verb string, args ...string) string {
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
		return string(out)
	}
	c.create(t, policyInForce(t))
	const name = "agent-clerk"
	role := []string{"clerk", "--org", "dexorder", "--env", "test"}
	with := func(more ...string) []string { return append(role[:len(role):len(role)], more...) }

	run(1, "+++ Deployment agent as it would be", "", "provision", with("--diff")...)
	if out := run(1, "ConfigMap role.clerk.dexorder.test in dexorder-system, with which the reaper compares the namespace: to be created\n", "",
		"provision", with("--diff")...); strings.Count(out, "kind: Deployment") != 1 {
		t.Errorf("the Deployment is shown more than once:\n%s", out)
	}
	// Nothing is applied if the agent would not be admitted.
	for _, how := range []string{"--yes", "--diff"} {
		run(1, "error: refused: Deployment agent: image-allowlist: spec.template.spec.containers[0].image: ", "", "provision", with(how, "--image", "bad/image:1")...)
	}
	if c.namespace(t, name) != nil {
		t.Fatal("a namespace was made for an agent that is not admitted")
	}
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
	run(1, "objects.yaml to be changed\n", "", "provision", with("--diff", "--image", "ghcr.io/dexorder/agent:v2")...)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "role-namespace"}}
	if err := c.Client.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	run(0, "provisioned: 1 object changed\n", "", "provision", with("--yes")...)
	run(1, `is of the role "clerk" in org "dexorder" and environment "test"`, "", "provision", "clerk", "--org", "other", "--env", "production", "--yes")
	if got := c.namespace(t, name).Labels[lifecycle.LabelOrg]; got != "dexorder" {
		t.Errorf("the namespace has become one of org %q", got)
	}
	// Where no policy can be read, admission says it when the rest is there, and this says what is.
	run(1, "applied before it, and left in place: Namespace agent-unjudged, ResourceQuota role-namespace, ", "", "provision", "unjudged", "--org", "dexorder",
		"--env", "test", "--image", "bad/image:1", "-n", "default", "--yes")
	run(2, "where the lifecycle webhook should be installed", "", "provision", with("--yes", "-n", "nowhere")...)

	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "agent"}}
	replicas := func(want int32) {
		t.Helper()
		c.get(t, d)
		if *d.Spec.Replicas != want {
			t.Errorf("%d replicas, want %d", *d.Spec.Replicas, want)
		}
	}
	c.create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "api-keys"}})
	said := run(0, "to be scaled from 1 to 0", "", "deprovision", "clerk", "--dry-run")
	for _, want := range []string{
		"The reaper deletes it, at the earliest at " + time.Now().Add(time.Hour).Format("2006-01-02T"),
		"(reaper.namespaces.idleAfter is 1h0m0s, reaper.sightings 2, and reaper.interval 1m0s)",
		"With it goes all that is in it: Deployment agent; PersistentVolumeClaim workdir; Secret api-keys; and whatever else.\n",
		"Nothing of it is kept (reaper.namespaces.retain is 0s)",
		"take it back with: kubectl agents deprovision --undo agent-clerk\n",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	for _, until := range []string{`"` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `"`, "null"} {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata": {"annotations": {"do-not-reap-until": `+until+`}}}`))
		if err := c.Client.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, patch); err != nil {
			t.Fatal(err)
		}
		const protected = "Once nothing keeps it any more it is idle. The reaper deletes it, at the earliest 1h2m0s later " +
			"(reaper.namespaces.idleAfter is 1h0m0s, reaper.sightings 2, and reaper.interval 1m0s).\n"
		if out := run(0, "With it goes all", "", "deprovision", "clerk", "--dry-run"); strings.Contains(out, protected) != (until != "null") {
			t.Errorf("protected until %s:\n%s", until, out)
		}
	}
	run(0, "Nothing deletes it until the system is installed", "", "deprovision", "clerk", "--dry-run", "-n", "nowhere")
	run(1, "error: not confirmed", "", "deprovision", "clerk")
	replicas(1)
	run(0, "kubectl agents deprovision --undo agent-clerk", "", "deprovision", "clerk", "--yes")
	replicas(0)
	if mark := c.namespace(t, name).Annotations[lifecycle.AnnotationDeprovisioned]; !strings.HasSuffix(mark, " admin") {
		t.Errorf("mark %q, want who did it", mark)
	}
	run(1, "error: refused: namespace agent-clerk was deprovisioned (", "", "provision", with("--yes")...)
	if again := run(0, "nothing is to be done\n", "", "deprovision", "clerk"); strings.Contains(again, "yes/no") {
		t.Errorf("it asks where nothing is to be done:\n%s", again)
	}
	run(0, "to be scaled to 1", "y\n", "deprovision", "--undo", name)
	replicas(1)
	if again := run(0, "nothing is to be done\n", "", "deprovision", "--undo", name); strings.Contains(again, "yes/no") {
		t.Errorf("it asks where nothing is to be done:\n%s", again)
	}
	run(0, "namespace agent-clerk is as it should be", "", "provision", role...)
	run(1, `error: refused: "nobody" is neither the role nor the name`, "", "deprovision", "nobody", "--yes")
	run(1, "nothing is kept of one that was reaped either", "", "deprovision", "--undo", "nobody", "--yes")
	run(0, "closed", "", "breaker")
	run(2, "--reason", "", "breaker", "open")
	run(0, "opened by ", "", "breaker", "open", "--reason", "agents of v2 stop while they work")
	run(1, ": agents of v2 stop while they work\nNothing is deleted until", "", "breaker")
	run(0, "it was open already, and nothing was changed: since ", "", "breaker", "open", "--reason", "me too")
	run(1, `"reason": "agents of v2 stop while they work"`, "", "breaker", "status", "-o", "json")
	run(0, "released; it was open since ", "", "breaker", "release")
	run(0, "closed; released by ", "", "breaker", "status")
	run(2, `there is no ConfigMap "lifecycle-breaker" in namespace "nowhere", or no such namespace: say where`, "", "breaker", "status", "-n", "nowhere")
	run(2, `there is no ConfigMap "lifecycle-breaker" in namespace "default"`, "", "breaker", "release", "-n", "default")
}

// policyInForce is what the manifests install, for whoever asks the cluster for the policy. The servers of these tests read a file.
func policyInForce(t *testing.T) *corev1.ConfigMap {
	t.Helper()
	policy, err := os.ReadFile("../policy/v1alpha1/example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: "lifecycle-policy"},
		Data:       map[string]string{"policy.yaml": string(policy)},
	}
}
