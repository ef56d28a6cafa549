//go:build e2e

package e2e

import (
	"context"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// What must not run is refused on every way in, and the answer says why.
func TestRefusals(t *testing.T) {
	defer keepEvidence(t)
	agent := createAgent(t, newAgent("agent-refusals"))
	pod := podOf(t, agent)

	for _, test := range []struct {
		name    string
		attempt func(context.Context) error
		says    []string
	}{
		{"foreign image", create(func(c *corev1.Container) { c.Image = "evil.example.com/miner:latest" }),
			[]string{"image-allowlist", `container "agent"`, "evil.example.com/miner:latest", "ghcr.io/dexorder/*"}},
		{"root", create(func(c *corev1.Container) { c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64)} }),
			[]string{"pod-security", `container "agent"`, "runAsUser=0"}},
		{"no limits", create(func(c *corev1.Container) { c.Resources = corev1.ResourceRequirements{} }),
			[]string{"resource-limits", `container "agent"`, "cpu", "memory"}},
		{"debug container in a Pod", patchPod(pod.Name, "ephemeralcontainers", `{"spec": {"ephemeralContainers": [
			{"name": "debug", "image": "busybox", "securityContext": {"runAsUser": 1000, "runAsNonRoot": true,
			"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
			"seccompProfile": {"type": "RuntimeDefault"}}}]}}`),
			[]string{"image-allowlist", `container "debug"`, "busybox"}},
		{"another image for a Pod's sidecar", patchPod(pod.Name, "", `{"spec": {"containers": [
			{"name": "lifecycle-sidecar", "image": "ghcr.io/dexorder/agent:v1.0.0"}]}}`),
			[]string{"sidecar-integrity", "ghcr.io/dexorder/agent:v1.0.0"}},
		{"two replicas", func(ctx context.Context) error {
			scale, err := client.AppsV1().Deployments(agentsNamespace).GetScale(ctx, agent.Name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			scale.Spec.Replicas = 2
			_, err = client.AppsV1().Deployments(agentsNamespace).UpdateScale(ctx, agent.Name, scale, metav1.UpdateOptions{})
			return err
		}, []string{"replicas", "2"}},
		{"Pod of one's own", func(ctx context.Context) error {
			own := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "own"}, Spec: agent.Spec.Template.Spec}
			_, err := client.CoreV1().Pods(agentsNamespace).Create(ctx, own, metav1.CreateOptions{})
			return err
		}, []string{"workload-kind"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.attempt(t.Context())
			if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "lifecycle.dexorder.io") {
				t.Fatalf("got %v, want a refusal by the webhook", err)
			}
			for _, want := range test.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the refusal does not say %q", want)
				}
			}
		})
	}
}

// create attempts an agent that differs in its container.
func create(change func(*corev1.Container)) func(context.Context) error {
	return func(ctx context.Context) error {
		return tryAgent(ctx, func(d *appsv1.Deployment) { change(&d.Spec.Template.Spec.Containers[0]) })
	}
}

func patchPod(name, subresource, patch string) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := client.CoreV1().Pods(agentsNamespace).Patch(ctx, name, types.StrategicMergePatchType, []byte(patch),
			metav1.PatchOptions{}, subresource)
		return err
	}
}
