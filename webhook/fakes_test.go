package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
)

// covered is the only namespace that fakePolicy covers.
const covered = "agents"

// fakePolicy covers one namespace with profile "fake" and does what its functions do.
type fakePolicy struct {
	inject func(d, old *appsv1.Deployment, opts inject.Options) ([]jsonpatch.Operation, []string)
	needs  policy.Needs
	review func(*policy.Request) policy.Verdict
}

func (p *fakePolicy) Profile(namespace string) string {
	if namespace == covered {
		return "fake"
	}
	return ""
}

func (p *fakePolicy) Inject(_ string, d, old *appsv1.Deployment, opts inject.Options) ([]jsonpatch.Operation, []string) {
	if p.inject == nil {
		return nil, nil
	}
	return p.inject(d, old, opts)
}

func (p *fakePolicy) Needs(*policy.Request) policy.Needs { return p.needs }

func (p *fakePolicy) Review(r *policy.Request) policy.Verdict {
	if p.review == nil {
		return policy.Verdict{Profile: "fake"}
	}
	return p.review(r)
}

func (p *fakePolicy) Active() Active { return Active{Policy: p, Hash: "abc"} }

// fakeFacts is a cluster that consists of a function.
type fakeFacts func(fresh bool) (*policy.Facts, error)

func (f fakeFacts) Facts(_ context.Context, _ *policy.Request, _ policy.Needs, fresh bool) (*policy.Facts, error) {
	return f(fresh)
}

func noFacts(bool) (*policy.Facts, error) {
	return nil, errors.New("no facts were expected to be asked for")
}

// rulesKept is a RulesKeeper that keeps, or not, and learns nothing.
type rulesKept bool

func (k rulesKept) Kept() bool { return bool(k) }
func (k rulesKept) Observe(string, *appsv1.Deployment, func(*appsv1.Deployment) []jsonpatch.Operation) {
}

func newTestAdmission(p *fakePolicy) (*Admission, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	return &Admission{
		Policies: p, Facts: fakeFacts(noFacts), RestartRules: rulesKept(true),
		Metrics: NewMetrics(registry, "test"), Logger: slog.New(slog.DiscardHandler),
	}, registry
}

// newRequest is a request that is understood on /validate, and on /mutate too: the creation of a Deployment.
func newRequest(t testing.TB) *admissionv1.AdmissionRequest {
	t.Helper()
	return &admissionv1.AdmissionRequest{
		UID:       types.UID("uid-1"),
		Kind:      metav1.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"},
		Resource:  metav1.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"},
		Operation: admissionv1.Create,
		Namespace: covered,
		Name:      "a",
		Object:    raw(t, newDeployment()),
	}
}

func newDeployment() *appsv1.Deployment {
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: covered},
		Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "agent", Image: "example.org/agent"}},
		}}},
	}
}

func raw(t testing.TB, object any) runtime.RawExtension {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}

// reviewOf wraps a request as the API server does.
func reviewOf(t testing.TB, r *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	return raw(t, &admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: r,
	}).Raw
}

// parseAnswer reads an answer as the API server does.
func parseAnswer(t testing.TB, answer []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		t.Fatalf("the answer is no AdmissionReview: %v\n%s", err, answer)
	}
	if review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview" || review.Response == nil {
		t.Fatalf("the answer is no AdmissionReview: %s", answer)
	}
	return review.Response
}

func validateRequest(t testing.TB, a *Admission, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer, err := a.Validate(context.Background(), nil, reviewOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(t, answer)
}

func mutateRequest(t testing.TB, a *Admission, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer, err := a.Mutate(context.Background(), nil, reviewOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(t, answer)
}

// metric returns the value of a time series as /metrics shows it, "" if it does not.
func metric(t testing.TB, gatherer prometheus.Gatherer, series string) string {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if value, ok := strings.CutPrefix(line, series+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
