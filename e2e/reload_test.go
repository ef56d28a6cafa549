//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const policyFile = "policy.yaml"

// A rule that is changed in the ConfigMap holds without a restart; a file with mistakes is refused, and where it gets by
// that it changes nothing and shows.
func TestPolicyReload(t *testing.T) {
	defer keepEvidence(t)
	original := readPolicy(t)
	t.Cleanup(func() {
		if err := writePolicy(context.WithoutCancel(t.Context()), original); err != nil {
			t.Error(err)
		}
	})
	before := identities(t)
	elsewhere := func(ctx context.Context) error {
		return tryAgent(ctx, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "registry.example.com/agent:v2"
		})
	}
	if err := elsewhere(t.Context()); err == nil {
		t.Fatal("the image of another registry is admitted from the start")
	}

	const allowed = "- ghcr.io/dexorder/*"
	changed := strings.Replace(original, allowed, allowed+"\n          - registry.example.com/*", 1)
	if changed == original {
		t.Fatalf("the policy does not list %q", allowed)
	}
	if err := writePolicy(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	eventually(t, reloadTimeout, elsewhere)

	mistaken := strings.Replace(changed, "profiles:", "profilez:", 1)
	if err := writePolicy(t.Context(), mistaken); err == nil || !strings.Contains(err.Error(), "\n- profilez: ") {
		t.Fatalf("a policy with a mistake: %v", err)
	}
	callForPolicy(t, "/nowhere")
	t.Cleanup(func() { callForPolicy(t, "/policy/2") })
	eventually(t, reloadTimeout, func(ctx context.Context) error { return writePolicy(ctx, mistaken) })
	eventually(t, reloadTimeout, func(ctx context.Context) error {
		for name := range before {
			// It answers 200: the old policy is in force.
			said, err := ask(ctx, name, "readyz", "verbose")
			if err != nil {
				return err
			}
			if !strings.Contains(said, "profilez") {
				return fmt.Errorf("server %s does not show what is wrong with its policy file:\n%s", name, said)
			}
		}
		return nil
	})
	if err := elsewhere(t.Context()); err != nil {
		t.Errorf("with a bad policy file, the good one before it does not hold: %v", err)
	}
	if diff := cmp.Diff(before, identities(t)); diff != "" {
		t.Errorf("servers were restarted, UID and restarts by name (-before +after):\n%s", diff)
	}
}

// callForPolicy has the API server call another path when the policy is written. What the servers do not know there is
// taken as it is.
func callForPolicy(t *testing.T, path string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"webhooks": [{"name": "policy.lifecycle.dexorder.io", "clientConfig": {"service": {"path": %q}}}]}`, path)
	_, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(context.WithoutCancel(t.Context()), registration,
		types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Error(err)
	}
}

// identities are the servers, so that a restart shows.
func identities(t *testing.T) map[string]string {
	t.Helper()
	pods, err := servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	result := map[string]string{}
	for _, pod := range pods {
		result[pod.Name] = fmt.Sprintf("%s %d", pod.UID, pod.Status.ContainerStatuses[0].RestartCount)
	}
	return result
}

func readPolicy(t *testing.T) string {
	t.Helper()
	config, err := client.CoreV1().ConfigMaps(systemNamespace).Get(t.Context(), "lifecycle-policy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return config.Data[policyFile]
}

func writePolicy(ctx context.Context, content string) error {
	configs := client.CoreV1().ConfigMaps(systemNamespace)
	config, err := configs.Get(ctx, "lifecycle-policy", metav1.GetOptions{})
	if err != nil {
		return err
	}
	config.Data[policyFile] = content
	if _, err = configs.Update(ctx, config, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return nudge(ctx)
}

// nudge has the kubelet look after the servers' volumes now. By itself it does so once a minute or two.
func nudge(ctx context.Context) error {
	pods, err := servers(ctx)
	if err != nil {
		return err
	}
	patch := fmt.Appendf(nil, `{"metadata": {"annotations": {"e2e/nudged": %q}}}`, time.Now().Format(time.RFC3339Nano))
	for i := range pods {
		_, err := client.CoreV1().Pods(systemNamespace).Patch(ctx, pods[i].Name, types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			return err
		}
	}
	return nil
}
