package integration

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestServerAway shows that nothing unjudged is admitted while no server runs, and that deletions finish.
func TestServerAway(t *testing.T) {
	c := install(t, controlplane.Options{ControllerManager: true})
	d := agent("alice")
	c.create(t, d)
	pod := c.podOf(t, "alice")
	for _, s := range c.Servers() {
		if err := c.RemoveServer(s); err != nil {
			t.Fatal(err)
		}
	}

	if err := c.Client.Create(t.Context(), agent("bob")); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
		t.Errorf("create: want a failed call, got: %v", err)
	}
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"note":"x"}}}`))
	if err := c.Client.Patch(t.Context(), d, patch); err != nil {
		t.Errorf("an annotation needs no judge, got: %v", err)
	}
	if err := c.Client.Delete(t.Context(), d, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatalf("delete: %v", err)
	}
	for _, o := range []client.Object{d, pod} {
		eventually(t, "end of "+o.GetName(), func() (bool, error) {
			err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
			if pod, ok := o.(*corev1.Pod); ok && err == nil && pod.DeletionTimestamp != nil {
				// There is no kubelet here to confirm that a Pod is gone.
				err = c.Client.Delete(t.Context(), pod, client.GracePeriodSeconds(0))
			}
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
	}
}
