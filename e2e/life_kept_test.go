//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
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

// A Pod that has to leave its node does not wait for its sidecar.
func drainDoesNotWait(t *testing.T, name string) {
	const grace = 180 * time.Second // so long that a machine with much to do is not mistaken for it
	l := bear(t, name, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(grace / time.Second))
	})
	old, start := l.pod.Name, time.Now()
	err := client.PolicyV1().Evictions(agentsNamespace).Evict(t.Context(),
		&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: old, Namespace: agentsNamespace}})
	if err != nil {
		t.Fatal(err)
	}
	l.awaitOther(old)
	took := time.Since(start)
	t.Logf("evicted and running again after %s; the grace period is %s", took, grace)
	if took > grace/2 {
		t.Errorf("that took %s of the grace period of %s", took, grace)
	}
	l.expectKept()
}

// What is applied to an agent that goes is refused instead of being lost.
func applyDuringDeletionIsRefused(t *testing.T, name string) {
	l := bear(t, name)
	deployments := client.AppsV1().Deployments(agentsNamespace)
	hold := []byte(`{"metadata": {"finalizers": ["e2e.lifecycle.dexorder.io/hold"]}}`)
	if _, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, hold, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.leave42()
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		d, err := deployments.Get(ctx, l.name, metav1.GetOptions{})
		if err != nil || d.DeletionTimestamp == nil {
			return errors.Join(errors.New("the agent does not go"), err)
		}
		return nil
	})
	change := []byte(`{"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}`)
	_, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, change, metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "on its way out") {
		t.Errorf("got %v, want a refusal with a reason", err)
	}
	release := []byte(`{"metadata": {"finalizers": null}}`)
	if _, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, release, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.expectGone()
}
