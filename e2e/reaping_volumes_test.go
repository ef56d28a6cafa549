//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// reaped waits until the role's namespace is gone.
func (r *role) reaped() {
	r.t.Helper()
	eventually(r.t, lifeTimeout, func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, r.name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the namespace is there: %w", err)
		}
		return nil
	})
}

// TestReapedVolumes: a claim that something controls goes with it, by the garbage collector, and its volume is kept
// all the same, until an operator gives it up: then the provisioner deletes it.
func TestReapedVolumes(t *testing.T) {
	t.Parallel()
	r := newRole(t, "agent-e2e-owned", func(*corev1.Namespace) {})
	r.call("POST", "data", "content", "work of weeks")
	// It stands for an operator's object: the policy lets no Deployment own a claim that is kept.
	keeper, err := client.CoreV1().ConfigMaps(r.name).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "keeper"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	owned := fmt.Appendf(nil, `{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "keeper", "uid": %q, "controller": true}]}}`,
		keeper.UID)
	claim, err := client.CoreV1().PersistentVolumeClaims(r.name).Patch(t.Context(), "worker-data", types.MergePatchType, owned, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	volume := claim.Spec.VolumeName
	r.scale(0)
	r.reaped()

	operator := kubectlAgents(t)
	if code, said := operator("restore", r.name); code != 0 {
		t.Fatalf("restore: exit code %d: %s", code, said)
	}
	r.scale(1)
	if got := r.call("GET", "data"); got != "work of weeks" {
		t.Errorf("after the restore the agent finds %q", got)
	}
	r.scale(0)
	r.reaped()

	if code, said := operator("discard", r.name); code != 1 || !strings.Contains(said, volume) {
		t.Errorf("without a word about the volume: exit code %d: %s", code, said)
	}
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		pv, err := client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		if err != nil || pv.Status.Phase != corev1.VolumeReleased || pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
			return fmt.Errorf("the volume is not kept: %+v, %w", pv, err)
		}
		return nil
	})
	code, said := operator("discard", r.name, "--volumes=delete")
	if code != 0 || !strings.Contains(said, "persistentvolume "+volume+": deleted") {
		t.Fatalf("discard: exit code %d: %s", code, said)
	}
	t.Log(said)
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		_, err := client.CoreV1().PersistentVolumes().Get(ctx, volume, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("the volume is there: %w", err)
		}
		return nil
	})
}
