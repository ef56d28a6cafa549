package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// newPolicyRequest is the creation of the policy's ConfigMap with data.
func newPolicyRequest(t testing.TB, data map[string]string) *admissionv1.AdmissionRequest {
	t.Helper()
	return &admissionv1.AdmissionRequest{
		UID:       "uid-1",
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "ConfigMap"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "configmaps"},
		Operation: admissionv1.Create,
		Namespace: "dexorder-system",
		Name:      "lifecycle-policy",
		Object: raw(t, &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-policy", Namespace: "dexorder-system"},
			Data:       data,
		}),
	}
}

func policyFileOf(text string) map[string]string { return map[string]string{"policy.yaml": text} }

func policyRequest(t testing.TB, a *Admission, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer, err := a.ReviewPolicy(context.Background(), nil, reviewOf(t, r))
	if err != nil {
		t.Fatal(err)
	}
	return parseAnswer(t, answer)
}

// changedPolicy is the example policy with replacements, each of which must have something to replace.
func changedPolicy(t testing.TB, oldnew ...string) string {
	t.Helper()
	text := string(v1alpha1.Example())
	for i := 0; i < len(oldnew); i += 2 {
		if !strings.Contains(text, oldnew[i]) {
			t.Fatalf("the example policy does not say %q", oldnew[i])
		}
		text = strings.Replace(text, oldnew[i], oldnew[i+1], 1)
	}
	return text
}

func TestPolicyIsAllowed(t *testing.T) {
	a, registry := newTestAdmission(&fakePolicy{})
	example := string(v1alpha1.Example())
	update := newPolicyRequest(t, policyFileOf(example))
	update.Operation, update.OldObject = admissionv1.Update, raw(t, &corev1.ConfigMap{Data: policyFileOf("no policy at all")})
	for name, r := range map[string]*admissionv1.AdmissionRequest{
		"creation":           newPolicyRequest(t, policyFileOf(example)),
		"mending":            update,
		"beside other files": newPolicyRequest(t, map[string]string{"policy.yaml": example, "notes": "{"}),
		"other hash":         newPolicyRequest(t, policyFileOf(string(policyNaming("second")))),
	} {
		got := policyRequest(t, a, r)
		if !got.Allowed || got.UID != "uid-1" || got.Patch != nil || len(got.Warnings) > 0 || got.AuditAnnotations["verdict"] != verdictAllow {
			t.Errorf("%s: %+v", name, got)
		}
	}
	series := `agent_lifecycle_admission_duration_seconds_count{kind="ConfigMap",path="policy"}`
	if n := metric(t, registry, series); n != "4" {
		t.Errorf("%s is %q", series, n)
	}
}

// Every mistake is said at once, each with its field and what would be accepted.
func TestPolicyIsRefused(t *testing.T) {
	const refused = "refused, since no server could load this policy:\n- "
	const unknownField = "Forbidden: unknown field; known here are apiVersion, identities, idle, kind, profiles, reaper, restartRules, rulesRevision, " +
		"selfDelete, sidecar, tiers"
	type causes []metav1.StatusCause
	whole := func(kind metav1.CauseType, message string) causes {
		return causes{{Type: kind, Message: message, Field: "data[policy.yaml]"}}
	}
	tests := []struct {
		name   string
		data   map[string]string
		want   string
		causes causes
	}{
		{
			name: "four mistakes",
			data: policyFileOf(changedPolicy(t, "storage: Delete # or Keep", "storage: Forget # or Keep",
				"checkInterval: 1m", "checkInterval: often", "profiles:", "profilez:")),
			want: `idle.checkInterval: Invalid value: "often": must be a duration, such as 90s, 15m or 1h30m` +
				"\n- profiles: Required value: at least one profile; without any no namespace is covered" +
				"\n- profilez: " + unknownField +
				"\n- tiers.anonymous.storage: Unsupported value: \"Forget\": supported values: \"Delete\", \"Keep\"",
			causes: causes{
				{Type: "FieldValueTypeInvalid", Field: "idle.checkInterval", Message: `Invalid value: "often": must be a duration, such as 90s, 15m or 1h30m`},
				{Type: "FieldValueRequired", Field: "profiles", Message: "Required value: at least one profile; without any no namespace is covered"},
				{Type: "FieldValueForbidden", Field: "profilez", Message: unknownField},
				{Type: "FieldValueNotSupported", Field: "tiers.anonymous.storage", Message: `Unsupported value: "Forget": supported values: "Delete", "Keep"`},
			},
		},
		{
			name: "no file", data: nil,
			want:   "data[policy.yaml]: Required value: the policy file goes here, a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1",
			causes: whole("FieldValueRequired", "Required value: the policy file goes here, a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1"),
		},
		{
			name: "file of another name", data: map[string]string{"policy.yml": string(v1alpha1.Example()), "a": ""},
			want: "data[policy.yaml]: Required value: the policy file goes here, a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1; " +
				`there is "a", "policy.yml"`,
			causes: whole("FieldValueRequired", "Required value: the policy file goes here, a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1; "+
				`there is "a", "policy.yml"`),
		},
		{
			name: "empty file", data: policyFileOf(""),
			want:   "the policy file is empty; want a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1",
			causes: whole("FieldValueInvalid", "the policy file is empty; want a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1"),
		},
		{
			name: "no YAML", data: policyFileOf("{"),
			want:   "the policy file is neither YAML nor JSON: line 1: did not find expected node content",
			causes: whole("FieldValueInvalid", "the policy file is neither YAML nor JSON: line 1: did not find expected node content"),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, registry := newTestAdmission(&fakePolicy{})
			var log bytes.Buffer
			a.Logger = slog.New(slog.NewTextHandler(&log, nil))
			for _, dryRun := range []bool{false, true} {
				r := newPolicyRequest(t, tt.data)
				r.DryRun = &dryRun
				got := policyRequest(t, a, r)
				if got.Allowed || got.Result == nil || got.Result.Details == nil || got.AuditAnnotations["verdict"] != verdictDeny {
					t.Fatalf("%+v", got)
				}
				if got.Result.Code != http.StatusUnprocessableEntity || got.Result.Reason != metav1.StatusReasonInvalid ||
					got.Result.Details.Kind != "ConfigMap" || got.Result.Details.Name != "lifecycle-policy" {
					t.Errorf("%+v", got.Result)
				}
				if diff := cmp.Diff(refused+tt.want, got.Result.Message); diff != "" {
					t.Errorf("message (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]metav1.StatusCause(tt.causes), got.Result.Details.Causes); diff != "" {
					t.Errorf("causes (-want +got):\n%s", diff)
				}
			}
			if !strings.Contains(log.String(), "path=policy verdict=deny") {
				t.Errorf("log: %s", log.String())
			}
			for _, reason := range faultReasons {
				if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="`+string(reason)+`"}`); n != "0" {
					t.Errorf("counted as %s: %q", reason, n)
				}
			}
		})
	}
}

// What no server would load is refused, and for the same reasons.
func TestPolicyIsJudgedAsItIsLoaded(t *testing.T) {
	files, err := filepath.Glob("../policy/v1alpha1/testdata/refused/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	a, _ := newTestAdmission(&fakePolicy{})
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		_, err = LoadPolicyFile(file, NewMetrics(prometheus.NewRegistry(), "test"), slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s is loaded", file)
			continue
		}
		said := strings.TrimPrefix(err.Error(), "policy file "+file+": ")
		want := "refused, since no server could load this policy:\n- " + strings.ReplaceAll(said, "\n", "\n- ")
		if got := policyRequest(t, a, newPolicyRequest(t, policyFileOf(string(data)))); got.Allowed || got.Result.Message != want {
			t.Errorf("%s: %+v, want %q", file, got.Result, want)
		}
	}
}

// A file full of mistakes fills no terminal.
func TestManyMistakes(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	var text strings.Builder
	text.Write(v1alpha1.Example())
	for i := range maxMistakes + 3 {
		fmt.Fprintf(&text, "  - {name: Wrong%d, namespaces: {names: [n%d]}, rules: {image-allowlist: {images: [a.b/*]}}}\n", i, i)
	}
	got := policyRequest(t, a, newPolicyRequest(t, policyFileOf(text.String())))
	if got.Allowed || !strings.HasSuffix(got.Result.Message, "\n- and 3 more") {
		t.Errorf("%.300v", got.Result)
	}
	last := metav1.StatusCause{Type: "FieldValueInvalid", Message: "and 3 more", Field: "data[policy.yaml]"}
	if causes := got.Result.Details.Causes; len(causes) != maxMistakes+1 || causes[maxMistakes] != last {
		t.Errorf("%d causes, the last is %+v", len(causes), causes[len(causes)-1])
	}
}

// What is no mistake of one field is said of the file, in the message as in the causes.
func TestMistakeOfNoField(t *testing.T) {
	for _, err := range []error{errors.New("a: b"), fmt.Errorf("a: %w", errors.New("b"))} {
		got := unloadable(err)
		want := []cause{{Type: "FieldValueInvalid", Message: "a: b", Field: "data[policy.yaml]"}}
		if got.allowed || !strings.HasSuffix(got.status.Message, ":\n- a: b") || !slices.Equal(got.status.Details.Causes, want) {
			t.Errorf("%+v", got.status)
		}
	}
}

// A registration that sends more than the policy holds nothing else up.
func TestOtherConfigMapsAreNotJudged(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	for _, name := range []string{"lifecycle-nats", "lifecycle-policy-2", ""} {
		r := newPolicyRequest(t, policyFileOf("{"))
		r.Name = name
		if got := policyRequest(t, a, r); !got.Allowed || got.AuditAnnotations["verdict"] != verdictUncovered {
			t.Errorf("%q: %+v", name, got)
		}
	}
}

// What cannot be judged is refused by a server that runs: it is no server that does not answer.
func TestPolicyFaultsRefuse(t *testing.T) {
	tests := []struct {
		name   string
		change func(*admissionv1.AdmissionRequest)
		reason faultReason
		want   string
	}{
		{"another resource", func(r *admissionv1.AdmissionRequest) { r.Resource.Resource = "secrets" }, faultNotUnderstood, "known are configmaps"},
		{"another kind", func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "Secret" }, faultNotUnderstood, "should be"},
		{"a deletion", func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Delete }, faultNotUnderstood, "known are [CREATE UPDATE]"},
		{"no object", func(r *admissionv1.AdmissionRequest) { r.Object.Raw = nil }, faultUndecodable, "there is no object"},
		{"data of another shape", object(`{"data":["policy.yaml"]}`), faultUndecodable, "object: "},
		{"a file of another shape", object(`{"data":{"policy.yaml":{}}}`), faultUndecodable, "/data/policy.yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, registry := newTestAdmission(&fakePolicy{})
			r := newPolicyRequest(t, policyFileOf(string(v1alpha1.Example())))
			tt.change(r)
			got := policyRequest(t, a, r)
			if got.Allowed || !strings.Contains(got.Result.Message, tt.want) || got.AuditAnnotations["fault"] != string(tt.reason) {
				t.Errorf("%+v", got)
			}
			if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="`+string(tt.reason)+`"}`); n != "1" {
				t.Errorf("counted %q times", n)
			}
		})
	}
}

// The largest ConfigMap there is, twice in an update, is read.
func TestLargePolicy(t *testing.T) {
	a, _ := newTestAdmission(&fakePolicy{})
	h := handlerOf(a, DefaultMaxInFlight)
	h.answer = a.ReviewPolicy
	example := string(v1alpha1.Example())
	text := example + strings.Repeat("#\n", (v1alpha1.MaxSize-len(example))/2)
	r := newPolicyRequest(t, policyFileOf(text))
	r.Operation, r.OldObject = admissionv1.Update, r.Object
	w := post(h, bytes.NewReader(reviewOf(t, r)))
	if w.Code != http.StatusOK || !parseAnswer(t, w.Body.Bytes()).Allowed {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
}
