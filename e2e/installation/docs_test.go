//go:build e2e

package installation

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// without leaves out what the tests have done already, or cannot do here: prepare is to build the images, make the cluster and load
// it, and later to delete it; prod is for another overlay than the one that is installed.
func without(all []block, words ...string) []block {
	return slices.DeleteFunc(all, func(b block) bool { return slices.Contains(words, b.word) })
}

// TestGettingStarted runs what docs/getting-started.md tells its readers to.
func TestGettingStarted(t *testing.T) {
	clean(t)
	t.Cleanup(func() { discardGettingStarted(t) })
	loadAs(t, "dev")
	shell(t, "", without(blocks(t, "getting-started.md", ""), "prepare"))
}

// installed is what a reader of the runbooks has: the system, agents of his own and a role agent.
const installed = `
{
kubectl apply -k manifests/overlays/dev
kubectl -n dexorder-system rollout status deployment/lifecycle-webhook --timeout=2m
kubectl -n dexorder-system rollout status deployment/agent-gateway --timeout=2m
kubectl agents provision marketing --org dexorder --env staging --image ghcr.io/dexorder/e2e-agent:e2e --yes
for name in busy stuck; do
  kubectl apply -f - <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: $name, namespace: dexorder-agents, labels: {lifecycle.dexorder.io/user-type: free}}
spec:
  selector: {matchLabels: {app: $name}}
  template:
    metadata: {labels: {app: $name}}
    spec:
      containers:
      - name: agent
        image: ghcr.io/dexorder/e2e-agent:e2e
        command: [/bin/lifecycle-manager, exec, --, /bin/e2e-agent]
        resources: {requests: {cpu: 1m, memory: 16Mi}, limits: {cpu: 100m, memory: 64Mi}}
YAML
done
kubectl -n dexorder-agents rollout status deployment/busy --timeout=2m
kubectl -n dexorder-agents rollout status deployment/stuck --timeout=2m
kubectl -n dexorder-agents exec deployment/busy -c agent -- lifecycle-manager trigger add inbox --reason "waits for an answer"
} >&9 2>&1
`

// breakerOpened has many agents end at once, as far as an agent can tell that ends now.
const breakerOpened = `
{
kubectl -n dexorder-system patch configmap lifecycle-breaker --type=merge --patch \
  "{\"data\": {\"state\": \"open\", \"since\": \"$(date -u +%FT%TZ)\", \"reason\": \"many\"}}"
sleep 10
pod=$(kubectl -n dexorder-agents get pod -l app=stuck -o jsonpath='{.items[0].metadata.name}')
kubectl create --raw "/api/v1/namespaces/dexorder-agents/pods/$pod:8080/proxy/exit?code=42" -f /dev/null
kubectl -n dexorder-agents wait pod/$pod --timeout=1m \
  --for=jsonpath='{.status.containerStatuses[?(@.name=="agent")].state.terminated.exitCode}'=42
sleep 1
} >&9 2>&1
agent=stuck
`

// TestRunbooks runs what the pages tell people who are in trouble, on an installation that is, as far as that can be had.
func TestRunbooks(t *testing.T) {
	clean(t)
	loadAs(t, "dev")
	const page = "operations.md"
	shell(t, installed+"agent=busy\n", slices.Concat(
		blocks(t, page, "### An agent does not stop"),
		blocks(t, page, "### The gateway makes no agents"),
		blocks(t, page, "### No server answers")))
	shell(t, "", blocks(t, page, "## Stop all deletion now"))
	shell(t, breakerOpened, slices.Concat(
		blocks(t, page, "### An agent stays after 42"),
		blocks(t, page, "## The breaker is open")))
	breakGlass(t)
}

// breakGlass sees to it that the commands do what the page says they do.
func breakGlass(t *testing.T) {
	t.Helper()
	const page = "security.md"
	expectUnjudged := func(what, want string) {
		t.Helper()
		eventually(t, func(ctx context.Context) error {
			if err := tryAgent(ctx); err == nil || !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%s: %w, want %q", what, err, want)
			}
			return nil
		})
	}
	steps := blocks(t, page, "### Agents must be changed while no server can run")
	shell(t, "", steps[:1])
	expectUnjudged("without registrations", "admitted without a sidecar")
	shell(t, "", steps[1:])
	awaitAdmission(t)

	steps = blocks(t, page, "### Nothing may be deleted at all")
	shell(t, "", steps[:1])
	expectUnjudged("without servers", "failed calling webhook")
	shell(t, "", steps[1:])
	awaitAdmission(t)

	reaper := []string{
		"auth", "can-i", "delete", "deployments.apps", "-n", "agent-marketing",
		"--as=system:serviceaccount:dexorder-system:lifecycle-webhook",
	}
	if _, said := kubectl(t, reaper...); said != "yes\n" {
		t.Errorf("the reaper in the server may delete what is in namespaces of role agents: %s, want yes", said)
	}
	shell(t, "", without(blocks(t, page, "### The reaper must stop now"), "prod"))
	for _, where := range []string{"agent-marketing", agentsNamespace} {
		reaper[5] = where
		if _, said := kubectl(t, reaper...); said != "no\n" {
			t.Errorf("the reaper may delete Deployments in %s: %s, want no", where, said)
		}
	}
	awaitAdmission(t) // which goes on

	shell(t, "", blocks(t, page, "### One namespace, agent or claim must stay"))
}

// loadAs gives the images to test another tag on the node, which is where the page's overlay looks for them.
func loadAs(t *testing.T, tag string) {
	t.Helper()
	nodes, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range nodes.Items {
		for _, image := range current.images {
			name := image[:strings.LastIndex(image, ":")]
			out, err := exec.CommandContext(t.Context(), "docker", "exec", nodes.Items[i].Name,
				"ctr", "--namespace", "k8s.io", "images", "tag", "--force", image, name+":"+tag).CombinedOutput()
			if err != nil {
				t.Fatalf("tag %s: %v: %s", image, err, out)
			}
		}
	}
}

// discardGettingStarted removes what the page leaves to its reader.
func discardGettingStarted(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, err := range []error{
		client.CoreV1().ServiceAccounts("default").Delete(ctx, "frontend", metav1.DeleteOptions{}),
		client.CoreV1().Namespaces().Delete(ctx, "agent-marketing", metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Log(err)
		}
	}
}
