package webhook

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func newTestHandler(t *testing.T, p *fakePolicy) *handler {
	t.Helper()
	a, _ := newTestAdmission(p)
	return handlerOf(a, DefaultMaxInFlight)
}

// handlerOf is the handler of /validate as a server with room for so many requests has it.
func handlerOf(a *Admission, maxInFlight int) *handler {
	return &handler{
		answer: a.Validate, overload: overloaded, tooMuch: tooMuch, maxBody: DefaultMaxBody,
		bodies: newBodies(maxInFlight, DefaultMaxBody), limiter: newLimiter(maxInFlight), metrics: a.Metrics,
	}
}

func post(h http.Handler, body io.Reader) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/validate?timeout=5s", body)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHTTP(t *testing.T) {
	w := post(newTestHandler(t, &fakePolicy{}), strings.NewReader(string(reviewOf(t, newRequest(t)))))
	if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "application/json" || !parseAnswer(t, w.Body.Bytes()).Allowed {
		t.Errorf("%d %v %s", w.Code, w.Header(), w.Body)
	}
}

// What is no AdmissionReview gets an HTTP error, never an answer.
func TestMalformed(t *testing.T) {
	good := string(reviewOf(t, newRequest(t)))
	tests := []struct {
		name, method, contentType, body string
		code                            int
		message                         string
	}{
		{name: "GET", method: http.MethodGet, body: good, code: 405, message: "only POST"},
		{name: "PUT", method: http.MethodPut, body: good, code: 405, message: "only POST"},
		{name: "no content type", contentType: "-", body: good, code: 415, message: "only application/json"},
		{name: "YAML", contentType: "application/yaml", body: good, code: 415, message: "only application/json"},
		{name: "content type that does not parse", contentType: "application/json; charset", body: good, code: 415},
		{name: "empty", body: "", code: 400, message: "no AdmissionReview"},
		{name: "no JSON", body: "kind: AdmissionReview", code: 400, message: "no AdmissionReview"},
		{name: "cut short", body: good[:len(good)-1], code: 400, message: "no AdmissionReview"},
		{name: "two values", body: good + good, code: 400, message: "no AdmissionReview"},
		{name: "null", body: "null", code: 400, message: "accepted is admission.k8s.io/v1, AdmissionReview"},
		{name: "list", body: "[]", code: 400, message: "no AdmissionReview"},
		{
			name: "old version", code: 400, message: "accepted is admission.k8s.io/v1, AdmissionReview",
			body: strings.Replace(good, "admission.k8s.io/v1", "admission.k8s.io/v1beta1", 1),
		},
		{
			name: "other kind", code: 400, message: "accepted is admission.k8s.io/v1, AdmissionReview",
			body: strings.Replace(good, "AdmissionReview", "ConversionReview", 1),
		},
		{name: "no request", body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, code: 400, message: "no request"},
		{
			name: "request null", code: 400, message: "no request",
			body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`,
		},
		{name: "no uid", body: strings.Replace(good, "uid-1", "", 1), code: 400, message: "no uid"},
		{name: "uid in another case", body: strings.Replace(good, `"uid"`, `"UID"`, 1), code: 400, message: "no uid"},
		{name: "uid of another type", body: strings.Replace(good, `"uid-1"`, "1", 1), code: 400, message: "/request/uid"},
		{
			name: "namespace twice", code: 400, message: "duplicate",
			body: strings.Replace(good, `"uid":`, `"namespace":"elsewhere","uid":`, 1),
		},
		{
			name: "name twice inside the object", code: 400, message: "duplicate",
			body: strings.Replace(good, `"template":`, `"template":{},"template":`, 1),
		},
		{name: "bad UTF-8", body: strings.Replace(good, "uid-1", "uid-\xff", 1), code: 400, message: "UTF-8"},
		{name: "deep", body: `{"deep":` + strings.Repeat("[", 20000), code: 413, message: "more than 128 deep"},
	}
	h := newTestHandler(t, &fakePolicy{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			method, contentType := tt.method, tt.contentType
			if method == "" {
				method = http.MethodPost
			}
			if contentType == "" {
				contentType = "application/json"
			}
			r := httptest.NewRequest(method, "/validate", strings.NewReader(tt.body))
			if contentType != "-" {
				r.Header.Set("Content-Type", contentType)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.message) {
				t.Errorf("%d %q, want %d and %q", w.Code, w.Body, tt.code, tt.message)
			}
			if strings.Contains(w.Body.String(), "allowed") || w.Body.Len() > 2*maxComplaint {
				t.Errorf("error of %d bytes: %q", w.Body.Len(), w.Body)
			}
		})
	}
}

func TestContentTypeWithParameters(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(string(reviewOf(t, newRequest(t)))))
	r.Header.Set("Content-Type", "application/json; charset=utf-8")
	w := httptest.NewRecorder()
	newTestHandler(t, &fakePolicy{}).ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An object of 3 MB is legal, and an update carries it twice.
func TestLargeUpdate(t *testing.T) {
	d := newDeployment()
	d.Annotations = map[string]string{"large": strings.Repeat("x", 3<<20)}
	r := newRequest(t)
	r.Operation, r.Object = admissionv1.Update, raw(t, d)
	r.OldObject = r.Object
	body := string(reviewOf(t, r))
	w := post(newTestHandler(t, &fakePolicy{}), strings.NewReader(body))
	if w.Code != http.StatusOK || !parseAnswer(t, w.Body.Bytes()).Allowed {
		t.Errorf("%d %.300s", w.Code, w.Body)
	}
}

// unsized hides a reader's length, so that a request has no Content-Length.
type unsized struct{ io.Reader }

func TestTooLarge(t *testing.T) {
	r := newRequest(t)
	r.Object = runtime.RawExtension{Raw: []byte(`"` + strings.Repeat("x", DefaultMaxBody) + `"`)}
	body := string(reviewOf(t, r))
	for name, reader := range map[string]io.Reader{
		"by its length": strings.NewReader(body), "by what comes": unsized{strings.NewReader(body)},
	} {
		t.Run(name, func(t *testing.T) {
			if w := post(newTestHandler(t, &fakePolicy{}), reader); w.Code != http.StatusRequestEntityTooLarge {
				t.Errorf("%d %.300s", w.Code, w.Body)
			}
		})
	}
}

func TestWithoutLength(t *testing.T) {
	w := post(newTestHandler(t, &fakePolicy{}), unsized{strings.NewReader(string(reviewOf(t, newRequest(t))))})
	if w.Code != http.StatusOK || !parseAnswer(t, w.Body.Bytes()).Allowed {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A buffer is used again for another request; nothing of the first may be left in it.
func TestAnswersDoNotMix(t *testing.T) {
	h := newTestHandler(t, &fakePolicy{})
	for _, uid := range []string{"a-long-uid-that-comes-first", "short", "a-long-uid-that-comes-last-"} {
		r := newRequest(t)
		r.UID = "x"
		body := strings.Replace(string(reviewOf(t, r)), `"uid":"x"`, `"uid":"`+uid+`"`, 1)
		if got := parseAnswer(t, post(h, strings.NewReader(body)).Body.Bytes()); string(got.UID) != uid {
			t.Errorf("uid %q, want %q", got.UID, uid)
		}
	}
}

// Without room a request is answered all the same, in a way that makes clients come again by themselves.
func TestOverload(t *testing.T) {
	h := newTestHandler(t, &fakePolicy{})
	h.limiter = newLimiter(1)
	h.limiter.maxWait = time.Millisecond
	release, err := h.limiter.acquire(context.Background(), 1)
	if err != nil {
		t.Fatal(err)
	}
	w := post(h, strings.NewReader(string(reviewOf(t, newRequest(t)))))
	got := parseAnswer(t, w.Body.Bytes())
	if w.Code != http.StatusOK || got.UID != "uid-1" || got.Allowed || got.Result.Code != http.StatusTooManyRequests ||
		got.Result.Details == nil || got.Result.Details.RetryAfterSeconds != 1 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = post(h, strings.NewReader(`{"padding":"`+strings.Repeat("x", 2*maxPeek)+`"}`))
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
		t.Errorf("a request whose uid is not found: %d %v %s", w.Code, w.Header(), w.Body)
	}
	release()
	w = post(h, strings.NewReader(string(reviewOf(t, newRequest(t)))))
	if !parseAnswer(t, w.Body.Bytes()).Allowed {
		t.Errorf("when there is room again: %d %s", w.Code, w.Body)
	}
}

func TestPatience(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"":               9500 * time.Millisecond,
		"?timeout=5s":    4500 * time.Millisecond,
		"?timeout=1s":    900 * time.Millisecond,
		"?timeout=1h":    29500 * time.Millisecond,
		"?timeout=-1s":   9500 * time.Millisecond,
		"?timeout=often": 9500 * time.Millisecond,
	} {
		if got := patience(httptest.NewRequest(http.MethodPost, "/validate"+query, nil)); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}
