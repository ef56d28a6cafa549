package bench_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/bench/stock"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// namespace of bench.Review.
const namespace = "dexorder-agents"

// envelope reads an AdmissionReview without looking at the object, and allows: less than any webhook can do with
// encoding/json and the types of the API.
func envelope(body []byte) ([]byte, error) {
	in := admissionv1.AdmissionReview{}
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	return encodeStock(&in, admissionv1.AdmissionResponse{UID: in.Request.UID, Allowed: true})
}

func encodeStock(in *admissionv1.AdmissionReview, response admissionv1.AdmissionResponse) ([]byte, error) {
	return json.Marshal(admissionv1.AdmissionReview{TypeMeta: in.TypeMeta, Response: &response})
}

// stockWay is controller-runtime without its HTTP handler, which ours leaves out too.
func stockWay(tb testing.TB) way {
	tb.Helper()
	mutate, validate, err := stock.Webhooks(bench.Policy(namespace))
	if err != nil {
		tb.Fatal(err)
	}
	handle := func(w *admission.Webhook) call {
		return func(body []byte) ([]byte, error) {
			in := admissionv1.AdmissionReview{}
			if err := json.Unmarshal(body, &in); err != nil {
				return nil, err
			}
			out := w.Handle(context.Background(), admission.Request{AdmissionRequest: *in.Request})
			return encodeStock(&in, out.AdmissionResponse)
		}
	}
	return way{"stock", handle(mutate), handle(validate)}
}

// oursWay is the real server's code below its HTTP handler, told of the cluster what the stock way is told.
func oursWay(tb testing.TB) way {
	tb.Helper()
	file := filepath.Join(tb.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, bench.Policy(namespace), 0o600); err != nil {
		tb.Fatal(err)
	}
	metrics, log := webhook.NewMetrics(prometheus.NewRegistry(), "bench"), slog.New(slog.DiscardHandler)
	policies, err := webhook.LoadPolicyFile(file, metrics, log)
	if err != nil {
		tb.Fatal(err)
	}
	a := &webhook.Admission{
		Policies: policies, Facts: noClaims{}, RestartRules: rulesKept{}, Metrics: metrics, Logger: log,
	}
	// The server keeps its buffers, and so does this.
	var buffer []byte
	handle := func(answer func(context.Context, []byte, []byte) ([]byte, error)) call {
		return func(body []byte) ([]byte, error) {
			out, err := answer(context.Background(), buffer[:0], body)
			buffer = out
			return out, err
		}
	}
	return way{"ours", handle(a.Mutate), handle(a.Validate)}
}

type noClaims struct{}

func (noClaims) Facts(_ context.Context, _ *policy.Request, needs policy.Needs, _ bool) (*policy.Facts, error) {
	return stock.NoClaims(needs), nil
}

type rulesKept struct{}

func (rulesKept) Kept() bool { return true }

func (rulesKept) Observe(string, *appsv1.Deployment, func(*appsv1.Deployment) []jsonpatch.Operation) {
}
