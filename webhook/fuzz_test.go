package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// FuzzReview holds that nothing which is not understood is allowed, whatever the bytes: an allowed answer is to the
// request's uid, of an understood sort, and either of a namespace that is not covered or judged.
func FuzzReview(f *testing.F) {
	seed := newRequest(f)
	f.Add(reviewOf(f, seed))
	seed.Operation, seed.OldObject = admissionv1.Update, seed.Object
	f.Add(reviewOf(f, seed))
	seed.Namespace = "elsewhere"
	f.Add(reviewOf(f, seed))
	seed.SubResource = "scale"
	f.Add(reviewOf(f, seed))
	f.Add(reviewOf(f, newStampRequest(f)))
	for _, s := range []string{
		``, `null`, `{}`, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1"}}`,
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"1","object":null,"object":{}}}`,
	} {
		f.Add([]byte(s))
	}
	var judged *policy.Request
	a, _ := newTestAdmission(&fakePolicy{review: func(r *policy.Request) policy.Verdict {
		judged = r
		return policy.Verdict{}
	}})
	f.Fuzz(func(t *testing.T, body []byte) {
		judged = nil
		for path, answer := range map[*path]func(context.Context, []byte, []byte) ([]byte, error){
			&mutation: a.Mutate, &validation: a.Validate,
		} {
			out, err := answer(context.Background(), nil, body)
			if err != nil {
				if len(out) > 0 {
					t.Errorf("%s: an error and an answer: %s", path.name, out)
				}
				continue
			}
			got := parseAnswer(t, out)
			r, err := decodeReview(body)
			if err != nil {
				t.Fatalf("%s: answered what is not understood (%v): %s", path.name, err, out)
			}
			if got.UID != r.UID {
				t.Errorf("%s: answered %q, asked was %q", path.name, got.UID, r.UID)
			}
			if !got.Allowed {
				continue
			}
			if _, err := understand(path.entries, r); err != nil {
				t.Errorf("%s: allowed although %v", path.name, err)
			}
			if path == &mutation || r.Namespace != covered {
				continue
			}
			if judged == nil || judged.Object == nil || judged.Object.Meta == nil || (judged.Old == nil) != (r.Operation == admissionv1.Create) {
				t.Errorf("allowed without a verdict on its objects: %s", body)
			}
		}
	})
}

// FuzzStamp holds that nothing is refused a stamp and the creation with it, whatever the bytes: the answer allows, is to the
// request's uid, and changes nothing but of an understood sort in a role agent's namespace.
func FuzzStamp(f *testing.F) {
	seed := newStampRequest(f)
	f.Add(reviewOf(f, seed))
	seed.Object.Raw = []byte(`{"metadata":{"labels":null,"annotations":{"lifecycle.dexorder.io/created-by-pod":"x"}}}`)
	f.Add(reviewOf(f, seed))
	seed.Namespace = covered
	f.Add(reviewOf(f, seed))
	seed.UserInfo.Extra = nil
	f.Add(reviewOf(f, seed))
	f.Add(reviewOf(f, newRequest(f)))
	a, _ := newTestAdmission(&fakePolicy{})
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := a.Stamp(context.Background(), nil, body)
		r, unread := decodeReview(body)
		if err != nil || unread != nil {
			if err == nil || unread == nil || len(out) > 0 {
				t.Errorf("answered %s with error %v what is read with error %v", out, err, unread)
			}
			return
		}
		got := parseAnswer(t, out)
		if got.UID != r.UID || !got.Allowed {
			t.Errorf("answered %q, %v; asked was %q", got.UID, got.Allowed, r.UID)
		}
		if got.Patch == nil {
			return
		}
		if _, err := understand(stamps, r); err != nil || !strings.HasPrefix(r.Namespace, lifecycle.RoleNamespacePrefix) {
			t.Errorf("changed in namespace %q, %v: %s", r.Namespace, err, got.Patch)
		}
	})
}

// FuzzPolicyReview holds that no policy is written which no server could load, whatever the bytes.
func FuzzPolicyReview(f *testing.F) {
	// Short, since the fuzzer tries again and again with less of each.
	seed := newPolicyRequest(f, policyFileOf(`{apiVersion: lifecycle.dexorder.io/v1alpha1, kind: LifecyclePolicy, sidecar: {image: "a.b/c:d"},
profiles: [{name: a, namespaces: {names: [a]}, rules: {image-allowlist: {images: ["a.b/*"]}}}]}`))
	f.Add(reviewOf(f, seed))
	seed.Operation, seed.OldObject = admissionv1.Update, seed.Object
	f.Add(reviewOf(f, seed))
	other := seed.DeepCopy()
	other.Name = "other"
	f.Add(reviewOf(f, other))
	f.Add(reviewOf(f, newPolicyRequest(f, policyFileOf("kind: LifecyclePolicy\nprofiles: 7\n"))))
	f.Add(reviewOf(f, newPolicyRequest(f, nil)))
	f.Add(reviewOf(f, newRequest(f)))
	a, _ := newTestAdmission(&fakePolicy{})
	if got := policyRequest(f, a, seed); !got.Allowed {
		f.Fatalf("the seed is refused: %+v", got.Result)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		out, err := a.ReviewPolicy(context.Background(), nil, body)
		r, unread := decodeReview(body)
		if err != nil || unread != nil {
			if err == nil || unread == nil || len(out) > 0 {
				t.Errorf("answered %s with error %v what is read with error %v", out, err, unread)
			}
			return
		}
		got := parseAnswer(t, out)
		if got.UID != r.UID || got.Patch != nil {
			t.Errorf("answered %q, patch %s; asked was %q", got.UID, got.Patch, r.UID)
		}
		if !got.Allowed {
			if got.Result == nil || got.Result.Message == "" {
				t.Errorf("refused without a word: %s", out)
			}
			return
		}
		if _, err := understand(policyWrites, r); err != nil {
			t.Errorf("allowed although %v", err)
		}
		if r.Name != lifecycle.PolicyConfigMap {
			return
		}
		var config corev1.ConfigMap
		if err := json.Unmarshal(r.Object, &config); err != nil {
			t.Fatal(err)
		}
		if _, err := compile([]byte(config.Data[lifecycle.PolicyKey])); err != nil {
			t.Errorf("allowed although %v", err)
		}
	})
}

// FuzzPeekUID holds that a uid which is found early is the request's.
func FuzzPeekUID(f *testing.F) {
	f.Add(reviewOf(f, newRequest(f)))
	f.Add([]byte(`{"request":{"name":{"uid":"2"},"uid":"1"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		uid := peekUID(bytes.NewReader(body))
		if r, err := decodeReview(body); err == nil && uid != "" && uid != r.UID {
			t.Errorf("found %q, it is %q", uid, r.UID)
		}
	})
}
