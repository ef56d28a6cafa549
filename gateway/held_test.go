package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// unreadyAgent returns the objects of a user's agent whose Pod is not ready.
func unreadyAgent(user string) []runtime.Object {
	objects := readyAgent(user, lifecycle.Free)
	objects[1].(*corev1.Pod).Status.Conditions[0].Status = corev1.ConditionFalse
	return objects
}

func problemOf(t *testing.T, body io.Reader) problem {
	t.Helper()
	var p problem
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	return p
}

// What a gateway that stops holds, and of which nothing was delivered, is answered: another replica takes it.
func TestHeldRequestsAreAnsweredWhenTheGatewayStops(t *testing.T) {
	t.Parallel()
	terminating := unreadyAgent("bob")
	terminating[0].(*appsv1.Deployment).DeletionTimestamp = new(terminating[1].(*corev1.Pod).Status.Conditions[0].LastTransitionTime)
	terminating[0].(*appsv1.Deployment).Finalizers = []string{"foregroundDeletion"}
	g, _ := newGateway(t, "127.0.0.1:1", func(o *Options) {
		o.WakeTimeout, o.Grace, o.Drain = time.Minute, 20*time.Second, 300*time.Millisecond
	}, append(unreadyAgent("alice"), terminating...)...)
	base, stop, done := stopGateway(t, g)
	answers := make(chan *http.Response, 3)
	for method, path := range map[string]string{"GET": "alice/connect/x", "POST": "bob/connect/x", "PUT": "bob"} {
		go func() {
			request, err := http.NewRequest(method, base+pathPrefix+path, http.NoBody)
			if err != nil {
				t.Error(err)
			}
			response, err := http.DefaultClient.Do(request) //nolint:bodyclose // who takes it from answers closes it
			if err != nil {
				t.Errorf("%s %s: %v", method, path, err)
			}
			answers <- response
		}()
	}
	waitFor(t, "nothing is held", func() bool { return len(g.limiter.held.all) == 2 && len(g.limiter.connected.all) == 3 })
	began := time.Now()
	stop()
	for range 3 {
		response := <-answers
		if response == nil {
			continue
		}
		p := problemOf(t, response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" || p.Code != "stopping" || !response.Close {
			t.Errorf("%s %s: %s %v %+v", response.Request.Method, response.Request.URL, response.Status, response.Header, p)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
}

// What is held when the drain begins, and becomes ready while it lasts, is delivered.
func TestHeldRequestIsDeliveredInTheDrain(t *testing.T) {
	t.Parallel()
	g, api := newGateway(t, hostileAgent(t, useAgent), func(o *Options) {
		o.WakeTimeout, o.Grace, o.Drain = time.Minute, 20*time.Second, 5*time.Second
	}, unreadyAgent("alice")...)
	base, stop, done := stopGateway(t, g)
	codes := make(chan int, 1)
	go func() {
		response, err := http.Get(base + pathPrefix + "alice/connect/x")
		if err != nil {
			t.Error(err)
			codes <- 0
			return
		}
		response.Body.Close()
		codes <- response.StatusCode
	}()
	waitFor(t, "nothing is held", func() bool { return len(g.limiter.held.all) == 1 })
	stop()
	pod := readyAgent("alice", lifecycle.Free)[1].(*corev1.Pod)
	if err := api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), pod, "agents"); err != nil {
		t.Fatal(err)
	}
	if code := <-codes; code != http.StatusOK {
		t.Errorf("answered with %d", code)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// While the API server is away requests are held, and either delivered when it is back, or told the reason, without addresses.
func TestAPIServerAway(t *testing.T) {
	t.Parallel()
	unreachable := &url.Error{Op: "Get", URL: "https://10.96.0.1:443/apis/apps/v1", Err: &net.OpError{Op: "dial", Err: io.EOF}}
	for name, tt := range map[string]struct {
		err    error
		back   bool
		method string
		below  string
		code   int
		detail string
	}{
		"unreachable":            {unreachable, false, "GET", "/connect/x", 503, "the cluster's API server does not answer"},
		"admission is away":      {apierrors.NewInternalError(fmt.Errorf("Post https://10.0.0.1:443/mutate: refused")), false, "GET", "/connect/x", 503, "answers with 500 InternalError"},
		"too many requests":      {apierrors.NewTooManyRequests("slow down", 1), false, "PUT", "", 503, "answers with 429 TooManyRequests"},
		"back in time":           {unreachable, true, "GET", "/connect/x", 200, ""},
		"back in time for PUT":   {unreachable, true, "PUT", "", 201, ""},
		"an error that is final": {apierrors.NewUnauthorized("no"), false, "GET", "/connect/x", 503, "cannot do it at the moment"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const hold = 4 * time.Second
			var away atomic.Bool
			away.Store(true)
			objects := unreadyAgent("alice")
			if tt.method == http.MethodPut {
				objects = nil
			}
			g, api := newGateway(t, hostileAgent(t, useAgent), func(o *Options) { o.WakeTimeout = hold }, objects...)
			api.PrependReactor("get", "deployments", func(clienttesting.Action) (bool, runtime.Object, error) { return away.Load(), nil, tt.err })
			answered := make(chan *httptest.ResponseRecorder, 1)
			began := time.Now()
			go func() { answered <- call(context.WithoutCancel(t.Context()), g, tt.method, "alice", tt.below) }()
			if tt.back {
				time.Sleep(hold / 4)
				away.Store(false)
				if tt.method == http.MethodGet {
					pod := readyAgent("alice", lifecycle.Free)[1].(*corev1.Pod)
					if err := api.Tracker().Update(corev1.SchemeGroupVersion.WithResource("pods"), pod, "agents"); err != nil {
						t.Fatal(err)
					}
				}
			}
			w := <-answered
			took := time.Since(began)
			if w.Code != tt.code || !strings.Contains(w.Body.String(), tt.detail) || strings.Contains(w.Body.String(), "10.") {
				t.Errorf("after %s: %d %s, want %d with %q", took, w.Code, w.Body, tt.code, tt.detail)
			}
			if held := isTransient(tt.err) && !tt.back; held != (took >= hold-100*time.Millisecond) {
				t.Errorf("answered after %s; it is held for %s: %t", took, hold, held)
			}
		})
	}
}

// A caller whose token nobody can be asked about is told that, and not that something failed.
func TestNobodyToAskAboutTokens(t *testing.T) {
	g, api := newGateway(t, "", nil)
	g.options.Authenticator = NewTokenReviews(api.AuthenticationV1().TokenReviews(), TokenReviewOptions{Audience: "agent-gateway", Opaque: true, Now: time.Now})
	api.PrependReactor("create", "tokenreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, &url.Error{Op: "Post", URL: "https://10.96.0.1:443", Err: io.EOF}
	})
	w := call(t.Context(), g, http.MethodGet, "alice", "", "Authorization", "Bearer x")
	if w.Code != 503 || !strings.Contains(w.Body.String(), "nobody can be asked whose token it is: the cluster's API server does not answer") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// An agent that somebody has scaled to 0 does not come however long a request waits.
func TestScaledToZeroIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	objects := readyAgent("alice", lifecycle.Free)[:1]
	objects[0].(*appsv1.Deployment).Spec.Replicas = new(int32(0))
	g, api := newGateway(t, hostileAgent(t, useAgent), func(o *Options) { o.WakeTimeout = time.Minute }, objects...)
	began := time.Now()
	w := call(t.Context(), g, http.MethodGet, "alice", "/connect/x")
	if p := problemOf(t, w.Body); w.Code != http.StatusConflict || p.Code != "scaled-to-zero" || !strings.Contains(p.Detail, "scaled to 0") {
		t.Errorf("%d %+v", w.Code, p)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it was held for %s", took)
	}
	// The watch may be late: what counts is what is stored.
	scaled := objects[0].DeepCopyObject().(*appsv1.Deployment)
	scaled.Spec.Replicas = new(int32(1))
	if err := api.Tracker().Update(appsv1.SchemeGroupVersion.WithResource("deployments"), scaled, "agents"); err != nil {
		t.Fatal(err)
	}
	if err := api.Tracker().Add(readyAgent("alice", lifecycle.Free)[1]); err != nil {
		t.Fatal(err)
	}
	if w := call(t.Context(), g, http.MethodGet, "alice", "/connect/x"); w.Code != http.StatusOK {
		t.Errorf("scaled up again: %d %s", w.Code, w.Body)
	}
}

// An agent that is ready and takes no connection is told of without its address.
func TestAnswerWithoutAddresses(t *testing.T) {
	t.Parallel()
	g, _ := newGateway(t, "127.0.0.1:1", func(o *Options) { o.WakeTimeout = time.Second }, readyAgent("alice", lifecycle.Free)...)
	w := call(t.Context(), g, http.MethodGet, "alice", "/connect/x")
	if body := w.Body.String(); w.Code != http.StatusGatewayTimeout || strings.Contains(body, "127.0.0.1") || !strings.Contains(body, "takes no connection on port 3000") {
		t.Errorf("%d %s", w.Code, body)
	}
}

// A body over the limit is refused before the agent has seen a byte where its length is said, and in any case with the limit
// and without addresses.
func TestBodyOverTheLimit(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	address := hostileAgent(t, func(conn net.Conn) {
		connections.Add(1)
		useAgent(conn)
	})
	g, _ := newGateway(t, address, func(o *Options) {
		o.Limits.Body = 1000
		o.Address = func(_ *corev1.Pod, port int32) string {
			if port == lifecycle.ManagerPort {
				return "127.0.0.1:1" // it has no lifecycle manager
			}
			return address
		}
	}, readyAgent("alice", lifecycle.Free)...)
	base := serveGateway(t, g)
	for name, tt := range map[string]struct {
		method, path string
		body         io.Reader
		code         int
		limit        string
		connections  int64
	}{
		"of a known length":    {"POST", "/connect/upload", strings.NewReader(strings.Repeat("x", 1001)), 413, "Content-Length is 1001; accepted are up to 1000 bytes", 0},
		"of an unknown length": {"POST", "/connect/upload", io.MultiReader(strings.NewReader(strings.Repeat("x", 2000))), 413, "accepted are up to 1000 bytes", 1},
		"as long as it may be": {"POST", "/connect/upload", strings.NewReader(strings.Repeat("x", 1000)), 200, "1000 bytes", 1},
		"of a PUT":             {"PUT", "", strings.NewReader(strings.Repeat(" ", maxBody+1)), 413, "accepted are up to 65536 bytes", 0},
		"of a PUT, unknown":    {"PUT", "", io.MultiReader(strings.NewReader(strings.Repeat(" ", maxBody+1))), 413, "accepted are up to 65536 bytes", 0},
	} {
		connections.Store(0)
		request, err := http.NewRequestWithContext(t.Context(), tt.method, base+pathPrefix+"alice"+tt.path, tt.body)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != tt.code || !strings.Contains(string(text), tt.limit) || strings.Contains(string(text), "svc") || strings.Contains(string(text), "127.0.0.1") {
			t.Errorf("%s: %s %s, want %d with %q", name, response.Status, text, tt.code, tt.limit)
		}
		if got := connections.Load(); got != tt.connections {
			t.Errorf("%s: the agent saw %d connections, want %d", name, got, tt.connections)
		}
	}
}
