package manifests

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
)

// recorder stands where the server would and notes what arrives. It allows everything.
type recorder struct {
	server *httptest.Server

	mu    sync.Mutex
	calls []call
}

// call is what the API server asked, about which object.
type call struct{ what, object string }

func newRecorder(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{}
	r.server = httptest.NewTLSServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "not an AdmissionReview", http.StatusBadRequest)
		return
	}
	resource := review.Request.Resource.Resource
	if review.Request.SubResource != "" {
		resource += "/" + review.Request.SubResource
	}
	r.note(call{
		strings.Join([]string{strings.TrimPrefix(request.URL.Path, "/"), string(review.Request.Operation), resource}, " "),
		review.Request.Namespace + "/" + nameOf(review.Request),
	})

	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	// A failed write fails the API request that waits for it.
	_ = json.NewEncoder(w).Encode(review)
}

// nameOf is what a request is about. One of a whole collection names none.
func nameOf(r *admissionv1.AdmissionRequest) string {
	var old metav1.PartialObjectMetadata
	if err := json.Unmarshal(r.OldObject.Raw, &old); err == nil {
		return old.Name
	}
	return r.Name
}

// note leaves out what is asked again: where its cache is behind, the API server begins a change anew with what is stored.
func (r *recorder) note(c call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.calls, c) {
		r.calls = append(r.calls, c)
	}
}

// take returns what arrived since it was last called, sorted.
func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, c := range r.calls {
		all = append(all, c.what)
	}
	r.calls = nil
	slices.Sort(all)
	return all
}

// register creates the rendered registrations, pointed at the recorder, and waits until the API server follows them.
func (r *recorder) register(t *testing.T, client kubernetes.Interface, objects []*unstructured.Unstructured) {
	t.Helper()
	mutating := as[admissionregistrationv1.MutatingWebhookConfiguration](t,
		one(t, objects, "MutatingWebhookConfiguration", registrationName))
	for i := range mutating.Webhooks {
		r.divert(&mutating.Webhooks[i].ClientConfig)
	}
	validating := as[admissionregistrationv1.ValidatingWebhookConfiguration](t,
		one(t, objects, "ValidatingWebhookConfiguration", registrationName))
	for i := range validating.Webhooks {
		r.divert(&validating.Webhooks[i].ClientConfig)
	}
	registrations := client.AdmissionregistrationV1()
	_, err := registrations.MutatingWebhookConfigurations().Create(t.Context(), mutating, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = registrations.ValidatingWebhookConfigurations().Create(t.Context(), validating, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_ = registrations.MutatingWebhookConfigurations().Delete(ctx, registrationName, metav1.DeleteOptions{})
		_ = registrations.ValidatingWebhookConfigurations().Delete(ctx, registrationName, metav1.DeleteOptions{})
	})
	eventually(t, "the API server calls none or one of two webhooks", func(ctx context.Context) bool {
		_, err := client.AppsV1().Deployments("dexorder-agents").Create(ctx, newDeployment("probe"), dryRunCreate)
		return err == nil && len(r.take()) == 2
	})
}

func (r *recorder) divert(call *admissionregistrationv1.WebhookClientConfig) {
	url := r.server.URL + *call.Service.Path
	call.Service = nil
	call.URL = &url
	call.CABundle = bundleOf(r.server)
}
