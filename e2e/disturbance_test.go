//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
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
	const away = 20 * time.Second
	var lives []*life
	var sidecars []string
	inBothModes(t, func(mode string) {
		l := bear(t, mode+"-apiserver-away")
		lives = append(lives, l)
		sidecars = append(sidecars, strings.TrimPrefix(l.status(lifecycle.SidecarContainer).ContainerID, "containerd://"))
	})
	for _, l := range lives {
		l.awaitAge()
	}
	for _, l := range lives {
		l.must("POST", "exit", "code", "42", "file", "42", "after", "5s")
	}
	mustOnNode(t, "sh", "-c", "kill -STOP $(pidof kube-apiserver)")
	t.Cleanup(func() { onNode(t, "sh", "-c", "kill -CONT $(pidof kube-apiserver)") })
	time.Sleep(away)
	for _, sidecar := range sidecars {
		said := mustOnNode(t, "crictl", "logs", sidecar)
		if !strings.Contains(said, "Agent ended") || strings.Contains(said, "Deletion accepted") {
			t.Errorf("while the API server is away the sidecar says:\n%s", said)
		}
	}
	mustOnNode(t, "sh", "-c", "kill -CONT $(pidof kube-apiserver)")
	awaitAPIServer(t)
	for _, l := range lives {
		l.expectGone()
	}
}

// TestServersAway: without the webhook's servers no agent is deleted, and none works on behind a status of 42, whatever
// happens to its node. When they are back, all that wait are deleted.
func TestServersAway(t *testing.T) {
	var waiting, lost []*life
	inBothModes(t, func(mode string) {
		waiting = append(waiting, bear(t, mode+"-servers-away"))
		lost = append(lost, bear(t, mode+"-sandbox-lost", withManager("IDLE_TIMEOUT_MINUTES=60")))
	})
	for _, l := range slices.Concat(lost, waiting) {
		l.awaitAge()
	}
	replicas := serverReplicas(t)
	if err := scaleServers(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := scaleServers(context.WithoutCancel(t.Context()), replicas); err != nil {
			t.Error(err)
		}
	})
	for _, l := range slices.Concat(lost, waiting) { // of the former ones the manager sees the agent say that it is idle
		l.must("POST", "exit", "code", "42", "file", "42")
		l.expectSidecarSays("failed calling webhook")
	}
	for _, l := range waiting {
		l.expectKept()
	}

	mustOnNode(t, "systemctl", "restart", "kubelet")
	for _, l := range lost {
		l.loseSandbox()
	}
	for _, l := range lost {
		l.expectHeld()
	}
	for _, l := range waiting {
		if c := l.status(lifecycle.AgentContainer); c.RestartCount != 0 || c.State.Running != nil {
			t.Errorf("the kubelet has started an agent again that ended with 42: %+v", c)
		}
	}

	if err := scaleServers(t.Context(), replicas); err != nil {
		t.Fatal(err)
	}
	for _, l := range slices.Concat(lost, waiting) {
		l.expectGone()
	}
}

// loseSandbox ends the Pod's sandbox, as a reboot of the node does. The kubelet makes another and starts the containers in
// it, whatever their restart rules say.
func (l *life) loseSandbox() {
	l.t.Helper()
	sandbox := strings.TrimSpace(mustOnNode(l.t, "crictl", "pods", "--name", l.pod.Name, "-q"))
	mustOnNode(l.t, "crictl", "stopp", sandbox)
}

// expectHeld waits until the agent's manager says that it does not start the agent, and fails if the agent answers.
func (l *life) expectHeld() {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods(agentsNamespace).Get(ctx, l.pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		options := &corev1.PodLogOptions{Container: lifecycle.AgentContainer}
		data, err := client.CoreV1().Pods(agentsNamespace).GetLogs(pod.Name, options).DoRaw(ctx)
		if err != nil || !strings.Contains(string(data), "waiting for the Pod to be deleted") {
			return fmt.Errorf("the manager does not hold: %w: %s; %s", err, data, describePods([]corev1.Pod{*pod}))
		}
		return nil
	})
	if body, err := l.call("GET", "healthz"); err == nil {
		l.t.Errorf("the agent works behind a status of 42: %s", body)
	}
}
