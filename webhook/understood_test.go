package webhook

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/workload"
)

// A request of a sort that is not known is refused, in covered namespaces and elsewhere.
func TestNotUnderstood(t *testing.T) {
	tests := []struct {
		name    string
		change  func(*admissionv1.AdmissionRequest)
		message string
	}{
		{"resource", func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "secrets" }, `"secrets.apps"`},
		{"group", func(r *admissionv1.AdmissionRequest) { r.Resource.Group = "extensions" }, `"deployments.extensions"`},
		{"version", func(r *admissionv1.AdmissionRequest) { r.Resource.Version = "v2" }, `version "v2"`},
		{"subresource", func(r *admissionv1.AdmissionRequest) { r.SubResource = "status" }, `subresource "status"`},
		{"kind", func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "Pod" }, `it should be "apps/v1, Kind=Deployment"`},
		{"kind's version", func(r *admissionv1.AdmissionRequest) { r.Kind.Version = "v1beta1" }, `it should be`},
		{"operation", func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Connect }, `known are [CREATE UPDATE`},
		{"no operation", func(r *admissionv1.AdmissionRequest) { r.Operation = "" }, `known are [CREATE UPDATE`},
		{"no namespace", func(r *admissionv1.AdmissionRequest) { r.Namespace = "" }, "no namespace"},
	}
	a, _ := newTestAdmission(&fakePolicy{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, namespace := range []string{covered, "elsewhere"} {
				r := newRequest(t)
				r.Namespace = namespace
				tt.change(r)
				for _, got := range []*admissionv1.AdmissionResponse{mutateRequest(t, a, r), validateRequest(t, a, r)} {
					if got.Allowed || got.UID != r.UID || got.Result.Code != 400 || got.Result.Reason != metav1.StatusReasonBadRequest ||
						!strings.Contains(got.Result.Message, tt.message) {
						t.Errorf("in %s: allowed %v, %+v; want 400 with %q", namespace, got.Allowed, got.Result, tt.message)
					}
				}
			}
		})
	}
}

// /mutate knows Deployments only, and their scale is no Deployment.
func TestMutateUnderstandsDeploymentsOnly(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	for i := range validates {
		e := &validates[i]
		r := newRequest(t)
		r.Resource = metav1.GroupVersionResource{Group: e.group, Version: e.version, Resource: e.resource}
		r.SubResource, r.Kind, r.Operation = e.subresource, metav1.GroupVersionKind(e.kind), e.operations[0]
		if got := mutateRequest(t, a, r); got.Allowed != (e.kind == deploymentKind) {
			t.Errorf("%s: allowed %v", e, got.Allowed)
		}
	}
}

// Every kind that is said to be understood can be decoded.
func TestUnderstoodKindsAreDecoded(t *testing.T) {
	for _, entries := range [][]entry{mutates, validates} {
		for i := range entries {
			if !workload.Understands(entries[i].kind) {
				t.Errorf("%s: package workload does not understand %s", &entries[i], entries[i].kind)
			}
		}
	}
}
