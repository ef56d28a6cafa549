package bench_test

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/bench"
)

// What does not do the same job cannot be compared: both ways make the same Deployment of the recorded one and admit it,
// and refuse the one that nothing was injected into.
func TestWaysAgree(t *testing.T) {
	stored := map[string]*appsv1.Deployment{}
	for _, w := range ways(t)[1:] {
		mutated := patchedReview(t, bench.Review, answer(t, w.mutate, bench.Review))
		stored[w.name] = deploymentOf(t, mutated)
		if r := responseOf(t, answer(t, w.validate, mutated)); !r.Allowed || len(r.Warnings) > 0 {
			t.Errorf("%s: allowed %v with warnings %q of what it mutated itself; message %v", w.name, r.Allowed, r.Warnings, r.Result)
		}
		if r := responseOf(t, answer(t, w.validate, bench.Review)); r.Allowed {
			t.Errorf("%s: a Deployment without the sidecar is allowed", w.name)
		}
	}
	if diff := cmp.Diff(stored["stock"], stored["ours"]); diff != "" {
		t.Errorf("what the two ways make of the Deployment differs (-stock +ours):\n%s", diff)
	}
	if n := len(stored["ours"].Spec.Template.Spec.Containers); n != 2 {
		t.Errorf("%d containers after injection, want the agent and the sidecar", n)
	}
}

// The recorded request is that of testdata/deployment.yaml.
func TestReviewIsOfDeployment(t *testing.T) {
	want, err := bench.Deployment("agent-user-7f3a9c")
	if err != nil {
		t.Fatal(err)
	}
	got := deploymentOf(t, bench.Review)
	if diff := cmp.Diff(want.Labels, got.Labels); diff != "" {
		t.Errorf("labels differ (-deployment.yaml +review.json):\n%s", diff)
	}
	images := func(d *appsv1.Deployment) (images []string) {
		for _, c := range d.Spec.Template.Spec.Containers {
			images = append(images, c.Name, c.Image, c.Resources.Limits.Cpu().String())
		}
		return images
	}
	if diff := cmp.Diff(images(want), images(got)); diff != "" {
		t.Errorf("containers differ (-deployment.yaml +review.json):\n%s", diff)
	}
}

func reviewOf(tb testing.TB, body []byte) *admissionv1.AdmissionReview {
	tb.Helper()
	r := &admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, r); err != nil {
		tb.Fatal(err)
	}
	return r
}

func responseOf(tb testing.TB, body []byte) *admissionv1.AdmissionResponse {
	tb.Helper()
	r := reviewOf(tb, body).Response
	if r == nil {
		tb.Fatalf("no response in %s", body)
	}
	return r
}

func deploymentOf(tb testing.TB, body []byte) *appsv1.Deployment {
	tb.Helper()
	d := &appsv1.Deployment{}
	if err := json.Unmarshal(reviewOf(tb, body).Request.Object.Raw, d); err != nil {
		tb.Fatal(err)
	}
	return d
}

// patchedReview returns the request with the patch of an answer applied to its object.
func patchedReview(tb testing.TB, request, answer []byte) []byte {
	tb.Helper()
	patch, err := jsonpatch.DecodePatch(responseOf(tb, answer).Patch)
	if err != nil {
		tb.Fatal(err)
	}
	r := reviewOf(tb, request)
	if r.Request.Object.Raw, err = patch.Apply(r.Request.Object.Raw); err != nil {
		tb.Fatal(err)
	}
	body, err := json.Marshal(r)
	if err != nil {
		tb.Fatal(err)
	}
	return body
}
