package reaper

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An answer that ends between two fields reads as a list of nothing: it must not pass for an empty cluster.
func TestWhole(t *testing.T) {
	if err := whole(&corev1.PodList{}); err == nil {
		t.Error("a list that the API server did not finish is taken for one of nothing")
	}
	if err := whole(&corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}); err != nil {
		t.Error(err)
	}
}
