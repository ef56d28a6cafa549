package integration

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// testScaled: what something else scales to 0 and back is not idle, whether that was there from the start, or turns up when the
// namespace is marked. Once it has gone, idleness counts anew.
func testScaled(t *testing.T, r *reaping) {
	const byHPA, byLabel, since, plain = "agent-scaled-hpa", "agent-scaled-knative", "agent-scaled-since", "agent-scaled-not"
	for _, name := range []string{byHPA, byLabel, since, plain} {
		r.own(t, name)
	}
	hpa := func(namespace, target string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "keda-hpa-worker"},
			Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: target}, MaxReplicas: 1,
			},
		}
	}
	scaler := hpa(byHPA, "worker")
	r.create(t, scaler)
	r.create(t, hpa(plain, "long-gone"))
	label := []byte(`{"metadata":{"labels":{"serving.knative.dev/service":"worker"}}}`)
	worker := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: byLabel, Name: "worker"}}
	if err := r.Client.Patch(t.Context(), worker, client.RawPatch(types.MergePatchType, label)); err != nil {
		t.Fatal(err)
	}
	r.policy.Reaper.Parallelism = 1 // before is for one request at a time
	r.mark(t, since, plain)
	for _, name := range []string{byHPA, byLabel} {
		if ns := r.namespace(t, name); ns.Annotations[lifecycle.AnnotationIdleSince] != "" || ns.Annotations[lifecycle.AnnotationSightings] != "" {
			t.Errorf("%s: %v", name, ns.Annotations)
		}
		r.untouched(t, name)
	}

	// The watch does not have to tell: what is in a marked namespace is read once more before anything is deleted.
	late := hpa(since, "worker")
	r.once(t, before("POST", "/selfsubjectaccessreviews", func() { r.create(t, late) }))
	r.goes(t, plain)
	if ns := r.namespace(t, since); ns == nil || ns.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("%s was marked still", since)
	}
	r.untouched(t, since)

	if err := r.Client.Delete(t.Context(), scaler); err != nil {
		t.Fatal(err)
	}
	r.once(t)
	r.clock.pass(59 * time.Minute)
	if got := verdict(r.once(t), "Namespace", byHPA); got != "" {
		t.Errorf("%s after 59 minutes: %q", byHPA, got)
	}
	r.clock.pass(2 * time.Minute)
	r.once(t)
	if got := verdict(r.once(t), "Namespace", byHPA); got != "marked" {
		t.Errorf("%s after that: %q", byHPA, got)
	}
	if err := r.Client.Get(t.Context(), client.ObjectKeyFromObject(scaler), scaler); !apierrors.IsNotFound(err) {
		t.Errorf("the scaler: %v", err)
	}
}
