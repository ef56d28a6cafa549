package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

func TestMutate(t *testing.T) {
	patch := []jsonpatch.Operation{
		{Operation: "add", Path: "/spec/template/metadata", Value: map[string]string{"a~b": "c/d"}},
		{Operation: "replace", Path: "/spec/replicas", Value: int32(0)},
		{Operation: "remove", Path: "/spec/paused"},
		{Operation: "add", Path: "/spec/nothing"},
	}
	a, _ := newTestAdmission(&fakePolicy{
		inject: func(d, old *appsv1.Deployment, opts inject.Options) ([]jsonpatch.Operation, []string) {
			if d.Name != "a" || old != nil || !opts.RestartRules || opts.ActivityKey != "key" {
				t.Errorf("Inject(%q, old %v, %v)", d.Name, old, opts)
			}
			return patch, []string{"put back"}
		},
	})
	a.ActivityKey = func() string { return "key" }
	got := mutateRequest(t, a, newRequest(t))
	if !got.Allowed || got.UID != "uid-1" || got.PatchType == nil || *got.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Errorf("answer: %+v", got)
	}
	const want = `[{"op":"add","path":"/spec/template/metadata","value":{"a~b":"c/d"}},` +
		`{"op":"replace","path":"/spec/replicas","value":0},{"op":"remove","path":"/spec/paused"},` +
		`{"op":"add","path":"/spec/nothing","value":null}]`
	if diff := cmp.Diff(want, string(got.Patch)); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"put back"}, got.Warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// Values of a patch are objects of the API, tagged for encoding/json.
func TestPatchValuesAreWrittenAsEncodingJSONWould(t *testing.T) {
	d := newDeployment()
	d.Spec.Template.Spec.Containers[0].Env = nil
	for _, value := range []any{d, d.Spec.Template.Spec, &d.Spec.Strategy, []string(nil), false, "é<", 1 << 40} {
		want, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		quoted, err := encodePatch([]jsonpatch.Operation{{Operation: "add", Path: "/x", Value: value}})
		if err != nil {
			t.Fatal(err)
		}
		var decoded []byte
		if err := json.Unmarshal(quoted, &decoded); err != nil {
			t.Fatal(err)
		}
		var got []struct{ Value any }
		if err := json.Unmarshal(decoded, &got); err != nil {
			t.Fatal(err)
		}
		var wanted any
		if err := json.Unmarshal(want, &wanted); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, got[0].Value); diff != "" {
			t.Errorf("%T (-want +got):\n%s", value, diff)
		}
	}
}

func TestUnchangedHasNoPatch(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	got := mutateRequest(t, a, newRequest(t))
	if !got.Allowed || got.Patch != nil || got.PatchType != nil {
		t.Errorf("answer: %+v", got)
	}
}

func TestDenial(t *testing.T) {
	verdict := policy.Verdict{
		Profile:  "fake",
		Denials:  []policy.Violation{{Rule: "rule-1", Field: "spec.x", Message: "no"}, {Rule: "rule-1", Field: "spec.y", Message: "no"}},
		Warnings: []policy.Violation{{Rule: "rule-2", Message: "careful"}},
		Audits:   []policy.Violation{{Rule: "rule-3", Message: "silent"}},
	}
	a, registry := newTestAdmission(&fakePolicy{review: func(*policy.Request) policy.Verdict { return verdict }})
	got := validateRequest(t, a, newRequest(t))
	want := &admissionv1.AdmissionResponse{
		UID: "uid-1",
		Result: &metav1.Status{
			Status: "Failure", Message: verdict.Message(), Reason: metav1.StatusReasonForbidden, Code: 403,
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: lifecycle.CauseJudged, Message: "rule-1"}}},
		},
		AuditAnnotations: map[string]string{
			"verdict": "deny", "profile": "fake", "policy": "abc", "rules": "rule-1,rule-2,rule-3",
		},
		Warnings: []string{"rule-2: careful"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	for _, labels := range []string{`rule="rule-1",verdict="deny"`, `rule="rule-2",verdict="warn"`, `rule="rule-3",verdict="audit"`} {
		series := `agent_lifecycle_admission_decisions_total{kind="Deployment",profile="fake",` + labels + "}"
		if n := metric(t, registry, series); n != "1" {
			t.Errorf("%s %s, want 1", series, n)
		}
	}
	if n := metric(t, registry, `agent_lifecycle_admission_decisions_total{kind="Deployment",profile="fake",rule="",verdict="allow"}`); n != "" {
		t.Errorf("a denial was counted as allowed %s times", n)
	}
}

func TestDryRunLeavesNoTrace(t *testing.T) {
	a, registry := newTestAdmission(&fakePolicy{})
	r := newRequest(t)
	r.DryRun = new(true)
	if got := validateRequest(t, a, r); !got.Allowed {
		t.Errorf("answer: %+v", got)
	}
	const series = `agent_lifecycle_admission_decisions_total{kind="Deployment",profile="fake",rule="",verdict="allow"}`
	if n := metric(t, registry, series); n != "" {
		t.Errorf("%s decisions were counted", n)
	}
	r.DryRun = nil
	validateRequest(t, a, r)
	if n := metric(t, registry, series); n != "1" {
		t.Errorf("%q decisions were counted without dry run, want 1", n)
	}
}

func TestUncoveredNamespace(t *testing.T) {
	a, registry := newTestAdmission(&fakePolicy{review: func(*policy.Request) policy.Verdict { panic("judged") }})
	r := newRequest(t)
	r.Namespace = "elsewhere"
	r.Object = runtime.RawExtension{Raw: []byte(`{"spec":7}`)} // nothing is read of it
	got := validateRequest(t, a, r)
	if !got.Allowed || got.AuditAnnotations["verdict"] != "uncovered" {
		t.Errorf("answer: %+v", got)
	}
	const series = `agent_lifecycle_admission_decisions_total{kind="Deployment",profile="",rule="",verdict="uncovered"}`
	if n := metric(t, registry, series); n != "1" {
		t.Errorf("counted %q times", n)
	}
}

// What a verdict is given.
func TestReviewedRequest(t *testing.T) {
	var got *policy.Request
	a, _ := newTestAdmission(&fakePolicy{review: func(r *policy.Request) policy.Verdict {
		got = r
		return policy.Verdict{}
	}})
	r := newRequest(t)
	r.Name = "" // as the API server leaves it at CREATE when the path has none
	r.UserInfo.Username, r.UserInfo.Groups = "me", []string{"us"}
	validateRequest(t, a, r)
	if got.Name != "a" || got.Old != nil || got.Object.Deployment == nil || got.User.Username != "me" || got.Facts == nil {
		t.Errorf("CREATE: %+v", got)
	}
	r.Name, r.Operation, r.OldObject = "a", admissionv1.Update, r.Object
	validateRequest(t, a, r)
	if got.Old == nil || got.Old.Deployment == nil || got.Operation != admissionv1.Update {
		t.Errorf("UPDATE: %+v", got)
	}
}

// A denial by outdated facts is judged again by fresh ones.
func TestFreshFacts(t *testing.T) {
	needy := &fakePolicy{
		needs: policy.Needs{Owner: true},
		review: func(r *policy.Request) policy.Verdict {
			if r.Facts.Owner == nil {
				return policy.Verdict{Denials: []policy.Violation{{Rule: "owned"}}}
			}
			return policy.Verdict{}
		},
	}
	owner := &policy.Facts{Owner: &policy.Owner{Name: "o"}}
	tests := []struct {
		name            string
		remembered, now *policy.Facts
		allowed         bool
		asked           int
	}{
		{"allowed at once", owner, nil, true, 1},
		{"allowed by fresh facts", &policy.Facts{}, owner, true, 2},
		{"denied by both", &policy.Facts{}, &policy.Facts{}, false, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newTestAdmission(needy)
			asked := 0
			a.Facts = fakeFacts(func(fresh bool) (*policy.Facts, error) {
				asked++
				if fresh {
					return tt.now, nil
				}
				return tt.remembered, nil
			})
			if got := validateRequest(t, a, newRequest(t)); got.Allowed != tt.allowed || asked != tt.asked {
				t.Errorf("allowed %v after %d look-ups, want %v after %d", got.Allowed, asked, tt.allowed, tt.asked)
			}
		})
	}
}

// Whatever goes wrong inside, the request is refused with a fault, which does not look like a denial.
func TestFaults(t *testing.T) {
	panics := &fakePolicy{
		inject: func(_, _ *appsv1.Deployment, _ inject.Options) ([]jsonpatch.Operation, []string) {
			panic("secret-detail")
		},
		review: func(*policy.Request) policy.Verdict { panic("secret-detail") },
	}
	expired, cancel := context.WithCancel(context.Background())
	cancel()
	tests := []struct {
		name   string
		policy *fakePolicy
		facts  fakeFacts
		ctx    context.Context
		mutate bool
		change func(*admissionv1.AdmissionRequest)
		reason string
		code   int32
	}{
		{name: "panic in a verdict", policy: panics, reason: "panic", code: 500},
		{name: "panic in injection", policy: panics, mutate: true, reason: "panic", code: 500},
		{
			name: "facts fail", policy: &fakePolicy{needs: policy.Needs{Owner: true}},
			facts: func(bool) (*policy.Facts, error) { return nil, errors.New("forbidden") }, reason: "facts", code: 500,
		},
		{
			name: "no time left", policy: &fakePolicy{needs: policy.Needs{Owner: true}}, ctx: expired,
			facts: func(bool) (*policy.Facts, error) { return nil, context.Canceled }, reason: "deadline", code: 500,
		},
		{
			name: "a patch that is no JSON", mutate: true, reason: "patch", code: 500,
			policy: &fakePolicy{inject: func(_, _ *appsv1.Deployment, _ inject.Options) ([]jsonpatch.Operation, []string) {
				return []jsonpatch.Operation{{Operation: "add", Path: "/x", Value: make(chan int)}}, nil
			}},
		},
		{
			name: "object null", reason: "undecodable", code: 500,
			change: func(r *admissionv1.AdmissionRequest) { r.Object = runtime.RawExtension{} },
		},
		{
			name: "object null on /mutate", mutate: true, reason: "undecodable", code: 500,
			change: func(r *admissionv1.AdmissionRequest) { r.Object = runtime.RawExtension{} },
		},
		{
			name: "oldObject null", reason: "undecodable", code: 500,
			change: func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update },
		},
		{
			name: "object of another shape", reason: "undecodable", code: 500,
			change: func(r *admissionv1.AdmissionRequest) { r.Object.Raw = []byte(`{"spec":{"replicas":"one"}}`) },
		},
		{
			name: "oldObject of another shape", reason: "undecodable", code: 500,
			change: func(r *admissionv1.AdmissionRequest) {
				r.Operation, r.OldObject.Raw = admissionv1.Update, []byte(`[]`)
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.policy == nil {
				tt.policy = &fakePolicy{}
			}
			a, registry := newTestAdmission(tt.policy)
			if tt.facts != nil {
				a.Facts = tt.facts
			}
			var log bytes.Buffer
			a.Logger = slog.New(slog.NewTextHandler(&log, nil))
			r, ctx := newRequest(t), context.Background()
			if tt.change != nil {
				tt.change(r)
			}
			if tt.ctx != nil {
				ctx = tt.ctx
			}
			answer := a.Validate
			if tt.mutate {
				answer = a.Mutate
			}
			body, err := answer(ctx, nil, reviewOf(t, r))
			if err != nil {
				t.Fatal(err)
			}
			got := parseAnswer(t, body)
			if got.Allowed || got.Result.Code != tt.code || got.AuditAnnotations["fault"] != tt.reason ||
				got.Result.Reason == metav1.StatusReasonForbidden || got.UID != "uid-1" {
				t.Errorf("answer: %s", body)
			}
			if strings.Contains(got.Result.Message, "secret-detail") {
				t.Errorf("the user is shown what only the log may hold: %s", got.Result.Message)
			}
			if tt.reason == "panic" && !(strings.Contains(log.String(), "secret-detail") && strings.Contains(log.String(), "admission_test.go")) {
				t.Errorf("the log does not hold the panic and its stack: %s", log.String())
			}
			if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="`+tt.reason+`"}`); n != "1" {
				t.Errorf("counted %q times", n)
			}
		})
	}
}
