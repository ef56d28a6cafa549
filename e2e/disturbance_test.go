//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// The promises below disturb the whole cluster, so these tests do not run beside others.

// awaitAPIServer waits until the API server answers and can hand out an agent.
func awaitAPIServer(t *testing.T) {
	t.Helper()
	eventually(t, rolloutTimeout, func(ctx context.Context) error { return tryAgent(ctx) })
}

// TestAPIServerAway: an agent that ends while nobody can be asked is deleted when somebody can.
func TestAPIServerAway(t *testing.T) {
	l := bear(t, "apiserver-away")
	l.awaitAge()
	const manifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	l.must("POST", "exit", "code", "42", "file", "42") // it ends in 20 ms
	mustOnNode(t, "sh", "-c", "kill -STOP $(pidof kube-apiserver)")
	t.Cleanup(func() { onNode(t, "sh", "-c", "kill -CONT $(pidof kube-apiserver)") })
	time.Sleep(20 * time.Second)
	mustOnNode(t, "sh", "-c", "kill -CONT $(pidof kube-apiserver); test -f "+manifest)
	awaitAPIServer(t)
	l.expectGone()
}

// TestWebhookDown: without the server no agent is deleted; with it, those are that wait.
func TestWebhookDown(t *testing.T) {
	l := bear(t, "webhook-down")
	l.awaitAge()
	replicas := serverReplicas(t)
	if err := scaleServers(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := scaleServers(context.WithoutCancel(t.Context()), replicas); err != nil {
			t.Error(err)
		}
	})
	l.must("POST", "exit", "code", "42", "file", "42")
	l.expectSidecarSays("failed calling webhook")
	l.expectKept()
	if err := scaleServers(t.Context(), replicas); err != nil {
		t.Fatal(err)
	}
	l.expectGone()
}

// TestSandboxLost: when the Pod's sandbox is lost after 42, as in a reboot of the node, the agent is started again by the
// kubelet, but it does not work: its manager holds, and it ends deleted.
func TestSandboxLost(t *testing.T) {
	l := bear(t, "sandbox-lost", withManager("IDLE_TIMEOUT_MINUTES=0.5"))
	// The server is away, so that the agent stays behind with its 42.
	replicas := serverReplicas(t)
	if err := scaleServers(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := scaleServers(context.WithoutCancel(t.Context()), replicas); err != nil {
			t.Error(err)
		}
	})
	l.expectSidecarSays("failed calling webhook")
	mustOnNode(t, "systemctl", "restart", "kubelet")
	sandbox := strings.TrimSpace(mustOnNode(t, "sh", "-c", "crictl pods --name "+l.pod.Name+" -q"))
	mustOnNode(t, "crictl", "stopp", sandbox)
	// The kubelet makes a new sandbox and starts the containers: the agent's manager holds and the agent does not run.
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods(agentsNamespace).Get(ctx, l.pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		data, err := client.CoreV1().Pods(agentsNamespace).GetLogs(pod.Name, &corev1.PodLogOptions{Container: lifecycle.AgentContainer}).DoRaw(ctx)
		if err != nil || !strings.Contains(string(data), "waiting for the Pod to be deleted") {
			return fmt.Errorf("the manager does not hold: %w: %s; %s", err, data, describePods([]corev1.Pod{*pod}))
		}
		return nil
	})
	if body, err := l.call("GET", "healthz"); err == nil {
		t.Errorf("the agent works behind a status of 42: %s", body)
	}
	if err := scaleServers(t.Context(), replicas); err != nil {
		t.Fatal(err)
	}
	l.expectGone()
}
