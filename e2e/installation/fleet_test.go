//go:build e2e

package installation

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// newerSidecar is another image of the same sidecar.
const newerSidecar = "ghcr.io/dexorder/lifecycle-sidecar:e2e-file"

// TestFleetFromBefore: a fleet that was there before the installation runs on through it. The audit tells who would be refused, adopt
// makes the others agents of the system, and upgrade brings them a new sidecar when they are idle.
func TestFleetFromBefore(t *testing.T) {
	clean(t)
	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if code, said := run(t, "go", []string{"build", "-o", plugin, "../../cmd/kubectl-agents"}); code != 0 {
		t.Fatal(said)
	}
	agents := func(want int, arguments ...string) string {
		t.Helper()
		code, said := run(t, plugin, arguments)
		t.Logf("$ kubectl agents %s: exit code %d\n%s", strings.Join(arguments, " "), code, said)
		if code != want {
			t.Fatalf("exit code %d, want %d", code, want)
		}
		return said
	}
	expect := func(said string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(said, part) {
				t.Errorf("it does not say %q", part)
			}
		}
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agentsNamespace}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	withManager := func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Command = []string{"/bin/lifecycle-manager", "exec", "--listen", ":8377", "--", "/bin/e2e-agent"}
	}
	for name, change := range map[string]func(*appsv1.Deployment){
		"before-idle": withManager, "before-works": withManager, "before-silent": func(*appsv1.Deployment) {},
		"before-greedy": func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Resources.Limits = nil },
	} {
		agent := newAgent(agentsNamespace, name, lifecycle.Free)
		agent.Labels = map[string]string{"app": name}
		agent.Spec.Strategy = appsv1.DeploymentStrategy{}
		agent.Spec.Template.Spec.ServiceAccountName = ""
		change(agent)
		if err := createAgent(t.Context(), agent); err != nil {
			t.Fatal(err)
		}
	}
	awaitRunning(t)
	before := fleet(t)
	const refused = `resource-limits: spec.template.spec.containers[0].resources.limits`
	expect(agents(1, "audit"), "Deployment before-greedy: would be refused", refused, "4 workloads by the example policy (the system is not installed)")

	current.applyKustomization(t)
	expectUntouched(t, before)
	expect(agents(1, "audit"), "Deployment before-greedy: would be refused", refused, "4 workloads and 1 in templates by the policy (in force): 1 would be refused",
		"4 are not adopted, 4 have no sidecar")

	// A minute old, before-idle has been quiet for some seconds. before-works has just had a visitor.
	idleFor := "20s"
	awaitQuiet(t, "before-idle", 20*time.Second)
	visit(t, "before-works")
	expect(agents(1, "adopt", "--rate", "60/m", "--idle-for", idleFor), "before-idle: done", "sidecar ", "before-works: left out: it was last active",
		"before-silent: left out: Pod before-silent-", "before-greedy: refused: ", "resource-limits: ")
	after := fleet(t)
	for _, name := range []string{"before-works", "before-silent", "before-greedy"} {
		if key := agentsNamespace + "/" + name; after[key].Pod != before[key].Pod {
			t.Errorf("agent %s was restarted", name)
		}
	}
	expect(agents(1, "adopt", "--restart-working", "--rate", "60/m"), "before-works: done", "before-silent: done", "before-greedy: refused: ")
	awaitRunning(t)
	for name, life := range fleet(t) {
		want := 2
		if strings.HasSuffix(name, "/before-greedy") {
			want = 1
		}
		if len(life.Restarts) != want {
			t.Errorf("agent %s has %d containers, want %d", name, len(life.Restarts), want)
		}
	}
	endIdle(t, "before-silent")
	expectGone(t, "before-silent")

	// A new sidecar comes to the agent that is idle, and to the other one not before it is.
	trigger(t, "PUT", "before-works")
	policy := strings.Replace(current.policy(t), "\n  image: "+sidecarOf(t, "before-idle")+"\n", "\n  image: "+newerSidecar+"\n", 1)
	writePolicy(t, policy)
	awaitQuiet(t, "before-idle", 20*time.Second)
	before = fleet(t)
	upgrade := []string{"upgrade", "--only-idle", "--rate", "60/m", "--idle-for", idleFor}
	expect(agents(1, upgrade...), "before-idle: done", "becomes "+newerSidecar, `before-works: left out: it says that it works: trigger "chat"`)
	if image := sidecarOf(t, "before-idle"); image != newerSidecar {
		t.Errorf("before-idle has the sidecar %s", image)
	}
	delete(before, agentsNamespace+"/before-idle")
	expectUntouched(t, before)
	trigger(t, "DELETE", "before-works")
	awaitQuiet(t, "before-works", 20*time.Second)
	expect(agents(0, upgrade...), "before-works: done", "becomes "+newerSidecar)
	if image := sidecarOf(t, "before-works"); image != newerSidecar {
		t.Errorf("before-works has the sidecar %s", image)
	}
	expect(agents(0, "list"), "before-idle", "RUNNING", "last active (", newerSidecar)
	expect(agents(0, "status", "before-idle"), "before-idle: RUNNING since ", "user type:", newerSidecar)
}

// ask sends a request to a port of an agent's Pod.
func ask(t *testing.T, method, name string, port int, path string) (string, error) {
	t.Helper()
	pods, err := client.CoreV1().Pods(agentsNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("agent %s has %d Pods, want 1: %v", name, len(pods.Items), err)
	}
	said, err := client.CoreV1().RESTClient().Verb(method).Namespace(agentsNamespace).Resource("pods").
		Name(fmt.Sprintf("%s:%d", pods.Items[0].Name, port)).SubResource("proxy").Suffix(path).DoRaw(t.Context())
	return string(said), err
}

// visit is what the gateway does for whoever connects.
func visit(t *testing.T, name string) {
	t.Helper()
	if said, err := ask(t, "POST", name, lifecycle.ManagerPort, "v1/activity"); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}

// trigger makes an agent say that it works, or works no more.
func trigger(t *testing.T, method, name string) {
	t.Helper()
	if said, err := ask(t, method, name, 8080, "manager/v1/triggers/chat"); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
}

// awaitQuiet waits until an agent has been quiet for long enough, having begun to be no later than now.
func awaitQuiet(t *testing.T, name string, long time.Duration) {
	t.Helper()
	if said, err := ask(t, "GET", name, lifecycle.ManagerPort, "v1/status"); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	time.Sleep(long + time.Second)
}

func sidecarOf(t *testing.T, name string) string {
	t.Helper()
	d, err := client.AppsV1().Deployments(agentsNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Name == lifecycle.SidecarContainer {
			return c.Image
		}
	}
	return ""
}

// writePolicy puts another policy in force. The servers are restarted, which is quicker than the kubelet's next look at the ConfigMap.
func writePolicy(t *testing.T, policy string) {
	t.Helper()
	config, err := client.CoreV1().ConfigMaps(systemNamespace).Get(t.Context(), "lifecycle-policy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if config.Data["policy.yaml"] == policy {
		t.Fatal("it is the policy of before")
	}
	config.Data["policy.yaml"] = policy
	if _, err := client.CoreV1().ConfigMaps(systemNamespace).Update(t.Context(), config, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	patch := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"e2e/restarted":%q}}}}}`, time.Now())
	if _, err := client.AppsV1().Deployments(systemNamespace).Patch(t.Context(), serverName, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	mustKubectl(t, "-n", systemNamespace, "rollout", "status", "deployment/"+serverName)
	eventually(t, func(ctx context.Context) error {
		agent := newAgent(agentsNamespace, "agent-try", lifecycle.Free)
		stored, err := client.AppsV1().Deployments(agentsNamespace).Create(ctx, agent, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil {
			return err
		}
		for _, c := range stored.Spec.Template.Spec.Containers {
			if c.Name == lifecycle.SidecarContainer && c.Image == newerSidecar {
				return nil
			}
		}
		return fmt.Errorf("the sidecar is not %s", newerSidecar)
	})
}
