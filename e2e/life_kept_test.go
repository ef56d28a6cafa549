//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Enterprise agents never stop: one that ends with 42 is started again.
func enterpriseStays(t *testing.T, name string) {
	l := bear(t, name, withUserType(lifecycle.Enterprise))
	l.exit(42)
	l.expectRestarted(42)
	l.expectSidecarSays("never shuts down", "Agent ended")
	l.expectKept()
}

// An agent that ends with 42 right after its start is broken: it is kept, and gets a fresh Pod.
func tooSoonGetsFreshPod(t *testing.T, name string) {
	l := &life{t: t, name: name}
	l.create(func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Command = []string{"/bin/e2e-agent", "exit", "42"}
		d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
	})
	first := podOf(t, l.deployment).Name
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		for i := range pods {
			if pods[i].Name != first && pods[i].DeletionTimestamp == nil {
				return nil
			}
		}
		return fmt.Errorf("there is no fresh Pod: %s", describePods(pods))
	})
	l.expectKept()
}

// A new image stops the old Pod, with SIGTERM, and that is no idleness.
func rolloutIsNotIdleness(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	old := l.pod.Name
	patch := []byte(`{"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}`)
	if _, err := client.AppsV1().Deployments(agentsNamespace).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[0].Name == old {
			return fmt.Errorf("the rollout is not done: %s", describePods(pods))
		}
		return nil
	})
	l.awaitRunning()
	l.expectKept()
}
