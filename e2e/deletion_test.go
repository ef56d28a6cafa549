//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Deletions finish while the server is down, although nothing else gets through then.
func TestDeletionFinishesWithoutServer(t *testing.T) {
	defer keepEvidence(t)
	agent := createAgent(t, newAgent("agent-deletion"))
	pod := podOf(t, agent)
	owner := metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: "Deployment", Name: agent.Name, UID: agent.UID, BlockOwnerDeletion: new(true),
	}
	claim := createClaim(t, agent.Name+"-data", owner)

	replicas := serverReplicas(t)
	t.Cleanup(func() {
		if err := scaleServers(context.WithoutCancel(t.Context()), replicas); err != nil {
			t.Error(err)
		}
	})
	if err := scaleServers(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		if err := tryAgent(ctx); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
			return fmt.Errorf("with no server, an attempt to create an agent gets %w, want a failed call", err)
		}
		return nil
	})

	foreground := metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationForeground)}
	err := client.AppsV1().Deployments(agentsNamespace).Delete(t.Context(), agent.Name, foreground)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		_, podErr := client.CoreV1().Pods(agentsNamespace).Get(ctx, pod.Name, metav1.GetOptions{})
		_, claimErr := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(ctx, claim.Name, metav1.GetOptions{})
		_, agentErr := client.AppsV1().Deployments(agentsNamespace).Get(ctx, agent.Name, metav1.GetOptions{})
		return errors.Join(gone("Pod", podErr), gone("claim", claimErr), gone("Deployment", agentErr))
	})
}

func gone(what string, err error) error {
	switch {
	case err == nil:
		return fmt.Errorf("the %s is still there", what)
	case apierrors.IsNotFound(err):
		return nil
	}
	return err
}

func createClaim(t *testing.T, name string, owner metav1.OwnerReference) *corev1.PersistentVolumeClaim {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name:            name,
			Labels:          map[string]string{lifecycle.LabelDeployment: owner.Name},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")},
			},
		},
	}
	claim, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Create(t.Context(), claim, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return claim
}
