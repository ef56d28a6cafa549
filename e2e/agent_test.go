//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// newAgent is what a user writes: an image and what it may use.
func newAgent(name string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: agentsNamespace},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{
					Name:  lifecycle.AgentContainer,
					Image: "ghcr.io/dexorder/agent:v1.0.0",
					Resources: corev1.ResourceRequirements{
						Limits: corev1.ResourceList{
							corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
						},
						// Half of a small node is the cluster's own, and an agent that does not fit waits for others to end.
						Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("5m")},
					},
				}}},
			},
		},
	}
}

// createAgent creates an agent for the length of the test.
func createAgent(t *testing.T, agent *appsv1.Deployment) *appsv1.Deployment {
	t.Helper()
	stored, err := client.AppsV1().Deployments(agentsNamespace).Create(t.Context(), agent, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		err := client.AppsV1().Deployments(agentsNamespace).Delete(ctx, agent.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return stored
}

// tryAgent creates an agent in a dry run and says why that failed. An agent that came through without a sidecar was not
// seen by the server.
func tryAgent(ctx context.Context, changes ...func(*appsv1.Deployment)) error {
	agent := newAgent("agent-try")
	for _, change := range changes {
		change(agent)
	}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	stored, err := client.AppsV1().Deployments(agentsNamespace).Create(ctx, agent, dryRun)
	if err != nil {
		return err
	}
	if containerNamed(stored.Spec.Template.Spec, lifecycle.SidecarContainer) == nil {
		return errors.New("the agent was admitted without a sidecar")
	}
	return nil
}

// podOf waits for the Pod that the cluster's controllers make for an agent.
func podOf(t *testing.T, agent *appsv1.Deployment) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		list, err := client.CoreV1().Pods(agentsNamespace).List(ctx,
			metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + agent.Name})
		if err != nil {
			return err
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("agent %s has %d Pods, want 1", agent.Name, len(list.Items))
		}
		pod = &list.Items[0]
		return nil
	})
	return pod
}

func containerNamed(spec corev1.PodSpec, name string) *corev1.Container {
	i := slices.IndexFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == name })
	if i < 0 {
		return nil
	}
	return &spec.Containers[i]
}
