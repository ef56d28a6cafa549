//go:build e2e

package e2e

import (
	"context"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/manifests"
)

// An agent that goes in plain comes out with its lifecycle, and so do its Pods; applying it again changes nothing.
func TestExampleAgentIsInjected(t *testing.T) {
	defer keepEvidence(t)
	const name = "agent-user-abc123"
	example := readExample(t)
	applier, err := manifests.NewApplier(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { deleteExample(t, name) })
	if _, err := applier.Apply(t.Context(), example); err != nil {
		t.Fatal(err)
	}

	stored := getAgent(t, name)
	if got := stored.Labels[lifecycle.LabelDeployment]; got != name {
		t.Errorf("label %s is %q, want %q", lifecycle.LabelDeployment, got, name)
	}
	if got := stored.Spec.Strategy.Type; got != appsv1.RecreateDeploymentStrategyType {
		t.Errorf("strategy %s, want Recreate", got)
	}

	pod := podOf(t, stored)
	if containerNamed(pod.Spec, lifecycle.SidecarContainer) == nil {
		t.Errorf("the Pod has no container %s", lifecycle.SidecarContainer)
	}
	if pod.Spec.ShareProcessNamespace == nil || !*pod.Spec.ShareProcessNamespace {
		t.Error("the Pod's containers do not share a PID namespace")
	}
	mounted := map[string]string{}
	for _, mount := range containerNamed(pod.Spec, lifecycle.AgentContainer).VolumeMounts {
		mounted[mount.MountPath] = mount.Name
	}
	if got := mounted[lifecycle.RunDir]; got != lifecycle.RunVolume {
		t.Errorf("the agent mounts %q at %s, want %s", got, lifecycle.RunDir, lifecycle.RunVolume)
	}
	if got := mounted[lifecycle.TokenDir]; got != "" {
		t.Errorf("the agent mounts %q where a service account token is looked for, want nothing there", got)
	}

	if _, err := applier.Apply(t.Context(), example); err != nil {
		t.Fatalf("apply again: %v", err)
	}
	if again := getAgent(t, name); again.Generation != stored.Generation {
		t.Errorf("applied again, its spec changed: generation %d became %d:\n%s", stored.Generation, again.Generation,
			cmp.Diff(stored.Spec, again.Spec))
	}
}

func readExample(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	content, err := os.ReadFile("../manifests/examples/agent-deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifests.Decode(content)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func deleteExample(t *testing.T, name string) {
	ctx := context.WithoutCancel(t.Context())
	for _, err := range []error{
		client.AppsV1().Deployments(agentsNamespace).Delete(ctx, name, metav1.DeleteOptions{}),
		client.CoreV1().Services(agentsNamespace).Delete(ctx, name, metav1.DeleteOptions{}),
		client.CoreV1().PersistentVolumeClaims(agentsNamespace).Delete(ctx, name+"-data", metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

func getAgent(t *testing.T, name string) *appsv1.Deployment {
	t.Helper()
	agent, err := client.AppsV1().Deployments(agentsNamespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return agent
}
