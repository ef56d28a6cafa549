package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// TestNamespaceFaults shows what keeps a role agent's namespace from being reaped, and that no fault makes the reaper delete more, or
// leave its work undone. There is no webhook, so that Pods can be made at will; the rights and the admission policies of the manifests
// hold. Each part has an org of its own, and so sees nothing of the others.
func TestNamespaceFaults(t *testing.T) {
	t.Parallel()
	plane := controlplane.StartForTest(t, controlplane.Options{ControllerManager: true})
	in, err := installation.New(t.Context(), plane, installation.Options{
		Program: program, Manifests: "../manifests/base", Policy: "../policy/v1alpha1/example.yaml",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Close(); err != nil {
			t.Errorf("closing the installation: %v", err)
		}
	})
	c := &cluster{Installation: in, plane: plane}
	for _, o := range []client.Object{
		&admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "agent-lifecycle"}},
		&admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "agent-lifecycle"}},
	} {
		if err := c.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for _, part := range []struct {
		name string
		test func(*testing.T, *reaping)
	}{
		{"guards", testGuards},
		{"undo", testUndo},
		{"written before the deletion", testWrittenBeforeDelete},
		{"cap", testCap},
		{"dry runs", testDryRuns},
		{"switched to a dry run", testSwitchedToDryRun},
		{"finalizers hold", testFinalizersHold},
		{"answers of the API server", testAnswers},
		{"nothing is decided on half a picture", testHalfAPicture},
		{"killed between any two writes", testKilled},
		{"nothing granted", testUngranted},
		{"an object is protected", testProtectedObject},
		{"something else scales", testScaled},
		{"two at once", testTwoAtOnce},
		{"loop", testLoop},
		{"the command", testReapCommand},
	} {
		t.Run(part.name, func(t *testing.T) {
			t.Parallel()
			part.test(t, c.newReapingOf(t, strings.ReplaceAll(part.name, " ", "-")))
		})
	}
}

// newReapingOf is newReaping for an org of its own.
func (c *cluster) newReapingOf(t *testing.T, org string) *reaping {
	t.Helper()
	r := c.newReaping(t)
	r.policy.Reaper.Namespaces.Orgs = []string{org}
	return r
}

// own makes a role agent's namespace of the reaper's org, with an agent in it that has no Pods.
func (r *reaping) own(t *testing.T, name string, changes ...func(*corev1.Namespace)) *corev1.Namespace {
	t.Helper()
	org := func(ns *corev1.Namespace) { ns.Labels[lifecycle.LabelOrg] = r.policy.Reaper.Namespaces.Orgs[0] }
	ns := r.roleNamespace(t, name, append([]func(*corev1.Namespace){org}, changes...)...)
	r.furnish(t, name)
	return ns
}

// mark has passes made until what is dead is marked.
func (r *reaping) mark(t *testing.T, names ...string) {
	t.Helper()
	r.once(t)
	r.clock.pass(61 * time.Minute)
	r.once(t)
	report := r.once(t)
	for _, name := range names {
		if got := verdict(report, "Namespace", name); got != "marked" {
			t.Fatalf("namespace %s: verdict %q, want marked", name, got)
		}
	}
}

func (r *reaping) annotate(t *testing.T, o client.Object, key, value string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	if value == "" {
		patch = fmt.Sprintf(`{"metadata":{"annotations":{%q:null}}}`, key)
	}
	if err := r.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
		t.Fatal(err)
	}
}

func bare(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

// untouched fails the test unless a namespace is there with all that furnish put into it.
func (r *reaping) untouched(t *testing.T, name string) {
	t.Helper()
	ns := r.namespace(t, name)
	if ns == nil || ns.DeletionTimestamp != nil {
		t.Errorf("namespace %s: is gone, or on its way", name)
		return
	}
	for _, o := range []client.Object{
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker"}},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data"}},
	} {
		if err := r.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil || o.GetDeletionTimestamp() != nil {
			t.Errorf("namespace %s: %T is gone, or on its way: %v", name, o, err)
		}
	}
}

// goes waits for the end of a namespace.
func (r *reaping) goes(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		eventually(t, "end of "+name, func() (bool, error) { return r.namespace(t, name) == nil, nil })
	}
}

// meddler is what happens to a request; next is how it goes out.
type meddler func(next http.RoundTripper, request *http.Request) (*http.Response, error)

type meddling struct {
	next http.RoundTripper
	with meddler
}

// RoundTrip implements http.RoundTripper.
func (m meddling) RoundTrip(request *http.Request) (*http.Response, error) {
	return m.with(m.next, request)
}

// through gives a reaper a connection on which something meddles.
func through(with meddler) func(*reaper.Options) {
	return func(o *reaper.Options) {
		o.Config = rest.CopyConfig(o.Config)
		o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper { return meddling{next, with} })
	}
}

// writes says whether a request changes something. A question about rights is posted, and changes nothing.
func writes(request *http.Request) bool {
	return request.Method != http.MethodGet && !strings.HasSuffix(request.URL.Path, "/selfsubjectaccessreviews")
}

func watches(request *http.Request) bool { return request.URL.Query().Get("watch") != "" }

// about says whether a request is about one of some namespaces, or about what is in it. A reaper looks after agents in the others, too.
func about(request *http.Request, namespaces ...string) bool {
	return slices.ContainsFunc(namespaces, func(name string) bool {
		return strings.Contains(request.URL.Path+"/", "/namespaces/"+name+"/")
	})
}

// inside says whether a request is about what is in a namespace.
func inside(request *http.Request, namespace string) bool {
	return strings.Contains(request.URL.Path, "/namespaces/"+namespace+"/")
}

// refusal is an answer of the API server that it did not give.
func refusal(request *http.Request, code int, reason metav1.StatusReason, header ...string) *http.Response {
	body, _ := json.Marshal(metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: int32(code), Reason: reason,
		Message: "a fault of the test",
	})
	response := &http.Response{
		StatusCode: code, Status: http.StatusText(code), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: request,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}
	for i := 0; i < len(header); i += 2 {
		response.Header.Set(header[i], header[i+1])
	}
	return response
}

var errAway = errors.New("connection refused by the test")

// sometimes is true for the first n calls of each kind of request.
func sometimes(n int) func(*http.Request) bool {
	var mu sync.Mutex
	seen := map[string]int{}
	return func(request *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := request.Method + " " + request.URL.Path
		seen[key]++
		return seen[key] <= n
	}
}

// Whatever the API server answers for a while: the passes that can, go on, the others fail, and in the end what was to go is gone.
func testAnswers(t *testing.T, r *reaping) {
	for name, fault := range map[string]struct {
		with func() meddler
		// fails says that the pass which takes the namespace apart fails; the next one does it.
		fails bool
	}{
		"429": {with: func() meddler {
			var n atomic.Int32
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if n.Add(1)%7 == 0 {
					return refusal(request, http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, "Retry-After", "1"), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"500 on reads": {fails: true, with: func() meddler {
			first := sometimes(1)
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if inside(request, "agent-500-on-reads") && !writes(request) && first(request) {
					return refusal(request, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"500 on deletions": {fails: true, with: func() meddler {
			first := sometimes(1)
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if request.Method == http.MethodDelete && first(request) {
					return refusal(request, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"503 that went through": {fails: true, with: func() meddler {
			first := sometimes(1)
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				response, err := next.RoundTrip(request)
				if request.Method == http.MethodDelete && first(request) && err == nil {
					response.Body.Close()
					return refusal(request, http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable), nil
				}
				return response, err
			}
		}},
		"409 on deletions": {with: func() meddler {
			first := sometimes(1)
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if request.Method == http.MethodDelete && !strings.Contains(request.URL.Path, "claims") && first(request) {
					return refusal(request, http.StatusConflict, metav1.StatusReasonConflict), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"410 on watches": {with: func() meddler {
			first := sometimes(2)
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if watches(request) && first(request) {
					return refusal(request, http.StatusGone, metav1.StatusReasonExpired), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"410 on the second page": {fails: true, with: func() meddler {
			var done atomic.Bool
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				request = paged(request, "1")
				if inside(request, "agent-410-on-the-second-page") && request.URL.Query().Get("continue") != "" && done.CompareAndSwap(false, true) {
					return refusal(request, http.StatusGone, metav1.StatusReasonExpired), nil
				}
				return next.RoundTrip(request)
			}
		}},
		"a list cut off": {fails: true, with: func() meddler {
			var done atomic.Bool
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				response, err := next.RoundTrip(request)
				if err == nil && inside(request, "agent-a-list-cut-off") && strings.HasSuffix(request.URL.Path, "/deployments") && done.CompareAndSwap(false, true) {
					body, _ := io.ReadAll(response.Body)
					response.Body.Close()
					response.Body, response.ContentLength = io.NopCloser(bytes.NewReader(body[:len(body)/2])), -1
					response.Header.Del("Content-Length")
				}
				return response, err
			}
		}},
		"nothing but small pages": {with: func() meddler {
			return func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				return next.RoundTrip(paged(request, "1"))
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := r.newReapingOf(t, "answers-"+strings.ReplaceAll(name, " ", "-"))
			namespace := "agent-" + strings.ReplaceAll(name, " ", "-")
			r.own(t, namespace)
			for _, n := range []string{"one", "two"} { // so that there are several pages
				d := agent(n)
				d.Namespace, d.Spec.Replicas = namespace, ptr(int32(0))
				r.create(t, d)
			}
			r.mark(t, namespace)
			report := r.once(t, through(fault.with()))
			if report.Failed() != fault.fails {
				t.Errorf("the pass failed: %t, want %t: %+v", report.Failed(), fault.fails, report.Reapers[0])
			}
			for range 3 {
				if ns := r.namespace(t, namespace); ns == nil || ns.DeletionTimestamp != nil {
					break
				}
				if report = r.once(t); report.Failed() {
					t.Errorf("a pass without faults failed: %+v", report)
				}
			}
			r.goes(t, namespace)
		})
	}

	// A mark that meets a conflict is made by the next pass, and is no failure.
	t.Run("409 on patches", func(t *testing.T) {
		t.Parallel()
		r := r.newReapingOf(t, "answers-409-on-patches")
		const namespace = "agent-409-on-patches"
		r.own(t, namespace)
		conflict := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
			if request.Method == http.MethodPatch {
				return refusal(request, http.StatusConflict, metav1.StatusReasonConflict), nil
			}
			return next.RoundTrip(request)
		})
		if report := r.once(t, conflict); report.Failed() {
			t.Errorf("the pass failed: %+v", report)
		}
		if ns := r.namespace(t, namespace); len(ns.Annotations) > 0 {
			t.Errorf("annotations: %v", ns.Annotations)
		}
		r.mark(t, namespace)
	})
}

// paged asks for small pages.
func paged(request *http.Request, limit string) *http.Request {
	query := request.URL.Query()
	if query.Get("limit") == "" {
		return request
	}
	query.Set("limit", limit)
	request = request.Clone(request.Context())
	request.URL.RawQuery = query.Encode()
	return request
}

// What cannot be read makes a pass fail, though all else can be read, and nothing is deleted.
func testHalfAPicture(t *testing.T, r *reaping) {
	const dead = "agent-half-dead"
	r.own(t, dead)
	r.mark(t, dead)
	fail := func(t *testing.T, with meddler) {
		t.Helper()
		deletions := 0
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		report, err := r.reaper(t, through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
			if writes(request) && about(request, dead) {
				deletions++
			}
			return with(next, request)
		})).Once(ctx)
		if err == nil && !report.Failed() {
			t.Errorf("the pass was good: %+v", report)
		}
		if deletions > 0 {
			t.Errorf("%d writes, want none", deletions)
		}
		r.untouched(t, dead)
	}
	for _, resource := range []string{"pods", "deployments", "jobs"} {
		t.Run(resource+" are not there", func(t *testing.T) {
			fail(t, func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				if strings.HasSuffix(request.URL.Path, "/"+resource) {
					return refusal(request, http.StatusInternalServerError, metav1.StatusReasonInternalError), nil
				}
				return next.RoundTrip(request)
			})
		})
	}
	t.Run("the live Pods are not there", func(t *testing.T) {
		fail(t, func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
			if inside(request, dead) && strings.HasSuffix(request.URL.Path, "/pods") {
				return refusal(request, http.StatusForbidden, metav1.StatusReasonForbidden), nil
			}
			return next.RoundTrip(request)
		})
	})
	// An empty list of Pods has some 30.
	for after := 4; after <= 24; after += 4 {
		t.Run(fmt.Sprintf("every list is cut off after %d bytes", after), func(t *testing.T) {
			fail(t, func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
				response, err := next.RoundTrip(request)
				if err == nil && inside(request, dead) && strings.HasSuffix(request.URL.Path, "/pods") {
					response.Body = &cutOff{response.Body, after}
				}
				return response, err
			})
		})
	}
	t.Run("the API server goes away during the pass", func(t *testing.T) {
		var away atomic.Bool
		fail(t, func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
			if strings.Contains(request.URL.Path, "/namespaces/"+dead) {
				away.Store(true)
			}
			if away.Load() {
				return nil, errAway
			}
			return next.RoundTrip(request)
		})
	})
	t.Run("the API server is away", func(t *testing.T) {
		fail(t, func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, errAway })
	})
	r.once(t)
	r.goes(t, dead)
}

// cutOff is a body that ends too early, without saying so.
type cutOff struct {
	io.ReadCloser
	left int
}

func (c *cutOff) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.ReadCloser.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// However many writes a reaper makes before it is killed, another one brings the work to the same end, and touches nothing else. The
// last write may have reached the API server though its answer has not come back.
func testKilled(t *testing.T, r *reaping) {
	const most = 8
	var done atomic.Int32
	t.Run("n", func(t *testing.T) {
		for n := range most {
			for _, lost := range []bool{false, true} {
				name := fmt.Sprintf("%d-lost-%t", n, lost)
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					if r.newReapingOf(t, "killed-"+name).killedAfter(t, "agent-killed-"+name, n, lost) {
						done.Add(1)
					}
				})
			}
		}
	})
	if got := done.Load(); got == 0 || got == 2*most {
		t.Errorf("%d of %d reapers did all their work before they were killed: want some, but not all", got, 2*most)
	}
}

// killedAfter says whether all was done before.
func (r *reaping) killedAfter(t *testing.T, name string, n int, lost bool) bool {
	t.Helper()
	neighbour := name + "-protected"
	r.own(t, name)
	r.own(t, neighbour, func(ns *corev1.Namespace) { ns.Annotations[lifecycle.AnnotationDoNotReap] = "true" })
	var left atomic.Int32
	left.Store(int32(n))
	var killed atomic.Bool
	kill := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		if killed.Load() {
			return nil, errAway
		}
		if writes(request) && left.Add(-1) < 0 {
			killed.Store(true)
			if lost {
				if response, err := next.RoundTrip(request); err == nil {
					response.Body.Close()
				}
			}
			return nil, errAway
		}
		return next.RoundTrip(request)
	})
	passes := func(changes ...func(*reaper.Options)) {
		for i := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			_, _ = r.reaper(t, changes...).Once(ctx)
			cancel()
			if ns := r.namespace(t, name); killed.Load() && len(changes) > 0 || ns == nil || ns.DeletionTimestamp != nil {
				return
			}
			if i == 0 {
				r.clock.pass(61 * time.Minute)
			}
		}
	}
	passes(kill)
	did := !killed.Load()
	passes()
	r.goes(t, name)
	r.untouched(t, neighbour)
	if ns := r.namespace(t, neighbour); ns.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("the protected neighbour is marked: %v", ns.Annotations)
	}
	return did
}

// Two reapers that both believe to be the only one reap each namespace once, and fail at nothing.
func testTwoAtOnce(t *testing.T, r *reaping) {
	names := []string{"agent-two-a", "agent-two-b", "agent-two-c"}
	for _, name := range names {
		r.own(t, name)
	}
	var mu sync.Mutex
	accepted := map[string]int{}
	count := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil && request.Method == http.MethodDelete && response.StatusCode < 300 {
			mu.Lock()
			accepted[request.URL.Path]++
			mu.Unlock()
		}
		return response, err
	})
	for i := range 7 {
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				report, err := r.reaper(t, count).Once(ctx)
				if err != nil || report.Failed() {
					t.Errorf("pass %d: %v, %+v", i, err, report)
				}
			})
		}
		all.Wait()
		if i == 0 {
			r.clock.pass(61 * time.Minute)
		}
	}
	r.goes(t, names...)
	mu.Lock()
	defer mu.Unlock()
	for _, name := range names {
		if got := accepted["/api/v1/namespaces/"+name]; got != 1 {
			t.Errorf("namespace %s was deleted %d times, want once", name, got)
		}
		reaped := 0
		for _, e := range r.heard.of(name) {
			if e == reaper.NamespaceReaped {
				reaped++
			}
		}
		if reaped != 1 {
			t.Errorf("told of %v", r.heard.of(name))
		}
	}
}

// What is written between the reaper's last look and its deletion makes the deletion fail.
func testWrittenBeforeDelete(t *testing.T, r *reaping) {
	const name = "agent-late-word"
	r.own(t, name)
	r.mark(t, name)
	conflicts := 0
	report := r.once(t, through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		if request.Method != http.MethodDelete || request.URL.Path != "/api/v1/namespaces/"+name {
			return next.RoundTrip(request)
		}
		r.annotate(t, bare(name), lifecycle.AnnotationDoNotReap, "true")
		response, err := next.RoundTrip(request)
		if err == nil && (response.StatusCode == http.StatusConflict || response.StatusCode == http.StatusForbidden) {
			conflicts++
		}
		return response, err
	}))
	ns := r.namespace(t, name)
	if conflicts != 1 || ns == nil || ns.DeletionTimestamp != nil {
		t.Fatalf("%d deletions were refused, want one; the namespace: %+v; the report: %+v", conflicts, ns, report.Reapers[0])
	}
	r.once(t)
	if ns = r.namespace(t, name); ns.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("the mark stays: %v", ns.Annotations)
	}
	err := r.Client.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "worker"}, &appsv1.Deployment{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the test is about what was taken apart already, and the Deployment is there: %v", err)
	}
}
