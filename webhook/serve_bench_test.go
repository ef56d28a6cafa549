package webhook

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// BenchmarkServe measures one CREATE of the example agent over TLS and HTTP/2, from the request's first byte to the answer's
// last: what the server adds to Admission is in it.
func BenchmarkServe(b *testing.B) {
	active, err := compile(v1alpha1.Example())
	if err != nil {
		b.Fatal(err)
	}
	a := &Admission{
		Policies: policyOf{active.Active}, Facts: fakeFacts(noFacts), RestartRules: rulesKept(true),
		Metrics: NewMetrics(prometheus.NewRegistry(), "test"), Logger: slog.New(slog.DiscardHandler),
	}
	file, err := os.ReadFile("../manifests/examples/agent-deployment.yaml")
	if err != nil {
		b.Fatal(err)
	}
	object, err := yaml.YAMLToJSON(bytes.Split(file, []byte("\n---\n"))[0])
	if err != nil {
		b.Fatal(err)
	}
	r := &admissionv1.AdmissionRequest{
		UID: "uid-1", Kind: newRequest(b).Kind, Resource: newRequest(b).Resource, Operation: admissionv1.Create,
		Namespace: "dexorder-agents", Name: "a", Object: runtime.RawExtension{Raw: object},
	}
	body := reviewOf(b, r)
	s := startServer(b, a, 0)
	client := newClient(nil, true)
	url := "https://" + s.admission.Addr().String() + "/mutate?timeout=5s"
	b.ReportAllocs()
	for b.Loop() {
		response, err := client.Post(url, "application/json", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			b.Fatal(response.Status)
		}
	}
}
