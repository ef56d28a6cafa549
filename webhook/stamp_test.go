package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// newStampRequest is an agent's creation of a Secret.
func newStampRequest(t testing.TB) *admissionv1.AdmissionRequest {
	t.Helper()
	return &admissionv1.AdmissionRequest{
		UID:       "uid-1",
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
		Operation: admissionv1.Create,
		Namespace: "agent-ceo",
		Name:      "a",
		UserInfo: authenticationv1.UserInfo{
			Username: "system:serviceaccount:agent-ceo:ceo",
			Extra: map[string]authenticationv1.ExtraValue{
				lifecycle.ExtraPodName: {"ceo-1"}, lifecycle.ExtraPodUID: {"uid-of-ceo-1"},
			},
		},
		Object: raw(t, &corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "agent-ceo", Labels: map[string]string{"team": "blue"}},
			Data:       map[string][]byte{"key": []byte("hidden")},
		}),
	}
}

func stampRequest(t testing.TB, a *Admission, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer, err := a.Stamp(context.Background(), nil, reviewOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(t, answer)
}

func TestStamp(t *testing.T) {
	// No policy covers the namespace: stamps are a matter of its name.
	a, registry := newTestAdmission(&fakePolicy{})
	for _, gvr := range []struct{ group, resource, kind string }{
		{"", "configmaps", "ConfigMap"}, {"", "secrets", "Secret"}, {"batch", "jobs", "Job"},
	} {
		r := newStampRequest(t)
		r.Resource = metav1.GroupVersionResource{Group: gvr.group, Version: "v1", Resource: gvr.resource}
		r.Kind = metav1.GroupVersionKind{Group: gvr.group, Version: "v1", Kind: gvr.kind}
		got := stampRequest(t, a, r)
		want := `[{"op":"add","path":"/metadata/labels/lifecycle.dexorder.io~1created-by-pod-uid","value":"uid-of-ceo-1"},` +
			`{"op":"add","path":"/metadata/annotations","value":{"lifecycle.dexorder.io/created-by-pod":"ceo-1"}}]`
		if !got.Allowed || got.UID != "uid-1" || string(got.Patch) != want || got.PatchType == nil || *got.PatchType != admissionv1.PatchTypeJSONPatch {
			t.Errorf("%s: %+v, patch %s", gvr.kind, got, got.Patch)
		}
		series := `agent_lifecycle_admission_duration_seconds_count{kind="` + gvr.kind + `",path="stamp"}`
		if n := metric(t, registry, series); n != "1" {
			t.Errorf("%s is %q", series, n)
		}
	}
}

func TestStampElsewhere(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	for _, namespace := range []string{covered, "dexorder-agents", "agent", "my-agent-ceo"} {
		r := newStampRequest(t)
		r.Namespace, r.UserInfo.Username = namespace, "system:serviceaccount:"+namespace+":ceo"
		if got := stampRequest(t, a, r); !got.Allowed || got.Patch != nil || got.AuditAnnotations["verdict"] != verdictUncovered {
			t.Errorf("in %s: %+v", namespace, got)
		}
	}
}

func TestStampIsTakenOff(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	r := newStampRequest(t)
	r.UserInfo = authenticationv1.UserInfo{Username: "ann"}
	r.Object = raw(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Labels: map[string]string{lifecycle.LabelCreatedByPodUID: "uid-of-ceo-1"},
	}})
	want := `[{"op":"remove","path":"/metadata/labels/lifecycle.dexorder.io~1created-by-pod-uid"}]`
	if got := stampRequest(t, a, r); !got.Allowed || string(got.Patch) != want {
		t.Errorf("%+v, patch %s", got, got.Patch)
	}
}

// panickingPolicy is one that nothing can be asked.
type panickingPolicy struct{ *fakePolicy }

func (p panickingPolicy) Profile(string) string { panic("secret-detail") }
func (p panickingPolicy) Active() Active        { return Active{Policy: p, Hash: "abc"} }

// Whatever goes wrong, the object is created as it is, and that is counted. The log never holds what is in a Secret.
func TestStampFaultsAdmit(t *testing.T) {
	tests := []struct {
		name   string
		change func(*admissionv1.AdmissionRequest)
		panics bool
		reason faultReason
		logged string
	}{
		{name: "another resource", change: func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "pods" }, reason: faultNotUnderstood, logged: "known are"},
		{name: "another kind", change: func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "ConfigMap" }, reason: faultNotUnderstood, logged: "should be"},
		{name: "an update", change: func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update }, reason: faultNotUnderstood, logged: "known are [CREATE]"},
		{name: "no namespace", change: func(r *admissionv1.AdmissionRequest) { r.Namespace = "" }, reason: faultNotUnderstood, logged: "no namespace"},
		{name: "no object", change: func(r *admissionv1.AdmissionRequest) { r.Object = runtime.RawExtension{} }, reason: faultUndecodable, logged: "without an object"},
		{name: "no metadata", change: object(`{"data":{"key":"hidden"}}`), reason: faultUndecodable, logged: "no metadata"},
		{name: "metadata null", change: object(`{"metadata":null}`), reason: faultUndecodable, logged: "no metadata"},
		{name: "a value in place of an object", change: object(`"hidden"`), reason: faultUndecodable, logged: "object cannot be read"},
		{name: "labels of another shape", change: object(`{"metadata":{"labels":["hidden"]}}`), reason: faultUndecodable, logged: "object/metadata/labels cannot be read"},
		{name: "a label of another shape", change: object(`{"metadata":{"labels":{"a":{"b":"hidden"}}}}`), reason: faultUndecodable, logged: "object/metadata/labels/a cannot be read"},
		{name: "a panic", change: func(*admissionv1.AdmissionRequest) {}, panics: true, reason: faultPanic, logged: "stack"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, registry := newTestAdmission(&fakePolicy{})
			if tt.panics {
				a.Policies = panickingPolicy{}
			}
			var log bytes.Buffer
			a.Logger = slog.New(slog.NewTextHandler(&log, nil))
			r := newStampRequest(t)
			tt.change(r)
			got := stampRequest(t, a, r)
			if !got.Allowed || got.Patch != nil || got.UID != "uid-1" || got.Result != nil && got.Result.Message != "" ||
				len(got.Warnings) > 0 || got.AuditAnnotations["fault"] != string(tt.reason) {
				t.Errorf("%+v", got)
			}
			if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="`+string(tt.reason)+`"}`); n != "1" {
				t.Errorf("counted %q times", n)
			}
			if !strings.Contains(log.String(), tt.logged) || strings.Contains(log.String(), "hidden") || strings.Contains(log.String(), "aGlkZGVu") {
				t.Errorf("log: %s", log.String())
			}
		})
	}
}

func object(data string) func(*admissionv1.AdmissionRequest) {
	return func(r *admissionv1.AdmissionRequest) { r.Object.Raw = json.RawMessage(data) }
}

// What is not about labels and annotations is not read, whatever it looks like.
func TestStampReadsMetadataOnly(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	r := newStampRequest(t)
	r.Object.Raw = []byte(`{"metadata":{"name":1,"ownerReferences":"x"},"data":[{"lifecycle.dexorder.io/created-by-pod-uid":null}],"spec":7}`)
	if got := stampRequest(t, a, r); !got.Allowed || got.Patch == nil || got.AuditAnnotations["verdict"] != verdictAllow {
		t.Errorf("%+v", got)
	}
}

// Want of room holds up no creation either.
func TestStampOverload(t *testing.T) {
	a, registry := newTestAdmission(&fakePolicy{})
	h := handlerOf(a, 1)
	h.answer, h.overload, h.tooMuch = a.Stamp, unstamped, unstampedTooMuch
	h.limiter.maxWait = time.Millisecond
	release, err := h.limiter.acquire(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	w := post(h, bytes.NewReader(reviewOf(t, newStampRequest(t))))
	got := parseAnswer(t, w.Body.Bytes())
	if w.Code != http.StatusOK || got.UID != "uid-1" || !got.Allowed || got.AuditAnnotations["fault"] != string(faultOverload) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	release()
	// Neither does an object that is more than is decoded.
	r := newStampRequest(t)
	r.Object.Raw = []byte(`{"data":[` + repeated(`{}`, maxListed+1) + `]}`)
	got = parseAnswer(t, post(h, bytes.NewReader(reviewOf(t, r))).Body.Bytes())
	if got.UID != "uid-1" || !got.Allowed || got.AuditAnnotations["fault"] != string(faultTooMuch) {
		t.Errorf("too much: %+v", got)
	}
	if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="overload"}`); n != "1" {
		t.Errorf("counted %q times", n)
	}
}
