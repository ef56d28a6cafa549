package gateway

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// noTiers keeps the storage of everybody, and stops everybody but enterprise.
type noTiers struct{}

func (noTiers) StopsWhenIdle(t lifecycle.UserType) bool { return t != lifecycle.Enterprise }

func (noTiers) DeletesStorage(lifecycle.UserType) bool { return false }

// readyAgent returns the objects of a user's agent that is ready.
func readyAgent(user string, userType lifecycle.UserType) []runtime.Object {
	name := Name(user)
	labels := map[string]string{lifecycle.LabelDeployment: name, lifecycle.LabelUserType: string(userType)}
	return []runtime.Object{
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
			Namespace: "agents", Name: name, UID: types.UID("d-" + name), Labels: labels,
			Annotations: map[string]string{lifecycle.AnnotationUser: escapeUser(user)},
		}},
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "agents", Name: name, UID: types.UID("p-" + name), Labels: labels},
			Status: corev1.PodStatus{PodIP: "192.0.2.1", Conditions: []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()},
			}},
		},
	}
}

// newGateway returns a Gateway that knows the objects; agents answer at the address, and nobody listens to them.
func newGateway(t *testing.T, address string, change func(*Options), objects ...runtime.Object) (*Gateway, *fake.Clientset) {
	t.Helper()
	text, err := os.ReadFile("../manifests/components/gateway/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	api := fake.NewClientset(objects...)
	options := Options{
		Client: api, Namespace: "agents", Template: template, Tiers: noTiers{}, DefaultUserType: lifecycle.Free,
		Address:     func(*corev1.Pod, int32) string { return address },
		WakeTimeout: 10 * time.Second, Grace: 5 * time.Second, Limits: DefaultLimits(),
		Now: time.Now, Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&options)
	}
	g, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); g.fleet.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	waitFor(t, "the agents are not known", func() bool { return g.Ready() == nil })
	return g, api
}

// serveGateway serves a Gateway's API and returns where.
func serveGateway(t *testing.T, g *Gateway) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.serve(ctx, ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

// hostileAgent serves connections as serve likes and returns its address. The connection is closed afterwards.
func hostileAgent(t *testing.T, serve func(conn net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// call asks a Gateway's handler.
func call(ctx context.Context, g *Gateway, method, user, below string, headers ...string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, method, pathPrefix+url.PathEscape(user)+below, http.NoBody)
	request.RemoteAddr = "198.51.100.7:4711"
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	g.Handler().ServeHTTP(w, request)
	return w
}

// clock is told what time it is.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

// Now returns the time.
func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// metric returns a counter's value.
func metric(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// waitFor waits until something is so; otherwise says what that means.
func waitFor(t *testing.T, otherwise string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(otherwise)
		}
	}
}
