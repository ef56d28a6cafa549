package integration

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// patchy is a way to the API server that can fail.
type patchy struct {
	next http.RoundTripper

	// late is locked while watches bring nothing; away is true while nothing can be read.
	late *sync.RWMutex
	away *atomic.Bool
}

func (f patchy) RoundTrip(r *http.Request) (*http.Response, error) {
	if f.away.Load() && r.Method == http.MethodGet {
		return nil, errors.New("the API server is away")
	}
	response, err := f.next.RoundTrip(r)
	if err == nil && r.URL.Query().Get("watch") != "" {
		response.Body = lateBody{response.Body, f.late}
	}
	return response, err
}

type lateBody struct {
	io.ReadCloser
	late *sync.RWMutex
}

func (b lateBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.late.RLock()
	defer b.late.RUnlock()
	return n, err
}

// startPatchy starts a gateway with a way to the API server that can fail, and a clock that can be put on.
func (c *cluster) startPatchy(t *testing.T, n *node, address func(*corev1.Pod, int32) string) (g *connected, f patchy, ahead *atomic.Int64) {
	t.Helper()
	f, ahead = patchy{late: new(sync.RWMutex), away: new(atomic.Bool)}, new(atomic.Int64)
	config := c.gatewayAccess()
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return patchy{next, f.late, f.away} })
	g = c.startGateway(t, n, func(o *gateway.Options) {
		o.Client = kubernetes.NewForConfigOrDie(config)
		o.Address = address
		o.WakeTimeout = 15 * time.Second
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	return g, f, ahead
}

// An address that another user's agent has got since is not dialled, though the watches have not said so yet.
func testLateWatches(t *testing.T, c *cluster, n *node) {
	const user, other = "moved", "next-door"
	var taken atomic.Pointer[string] // the Pod whose address another one has got
	g, f, ahead := c.startPatchy(t, n, func(pod *corev1.Pod, port int32) string {
		if name := taken.Load(); name != nil && pod.Name == *name && port != lifecycle.ManagerPort {
			_, theirs := n.of(t, gateway.Name(other))
			return n.address(theirs, port)
		}
		return n.address(pod, port)
	})
	for _, u := range []string{user, other} {
		g.want(t, http.StatusCreated, http.MethodPut, u, "", "")
		g.want(t, http.StatusOK, http.MethodGet, u, "/connect/", "")
	}
	_, pod := n.of(t, gateway.Name(user))
	before := c.parts(t, user)
	f.late.Lock()
	onTime := sync.OnceFunc(f.late.Unlock)
	defer onTime()
	taken.Store(&pod.Name)
	before.deletes(t, c)
	c.gone(t, before.deployment, pod)
	ahead.Add(int64(time.Minute))
	answered := make(chan *said, 1)
	go func() {
		s, err := g.ask(context.WithoutCancel(t.Context()), http.MethodGet, user, "/connect/private", "")
		if err != nil {
			t.Error(err)
		}
		answered <- s
	}()
	select {
	case s := <-answered:
		t.Errorf("answered by what the watches last said: %+v", s)
	case <-time.After(3 * time.Second):
	}
	onTime()
	if !t.Failed() {
		if s := <-answered; s == nil || s.code != http.StatusOK || !strings.HasPrefix(s.body, gateway.Name(user)) {
			t.Errorf("when the watches came it was answered with %+v", s)
		}
	}
	if theirs, _ := n.of(t, gateway.Name(other)); theirs.seen("/private") != 0 {
		t.Error("a request reached another user's agent")
	}
}

// While the API server is away, agents that speak are reached, and nobody else is at an address of which nobody knows whose it is.
func testNoAPIServer(t *testing.T, c *cluster, n *node) {
	const speaking, silent = "speaking", "silent"
	g, f, ahead := c.startPatchy(t, n, func(pod *corev1.Pod, port int32) string {
		if pod.Labels[lifecycle.LabelDeployment] == gateway.Name(silent) && port == lifecycle.ManagerPort {
			return "127.0.0.1:1"
		}
		return n.address(pod, port)
	})
	for _, u := range []string{speaking, silent} {
		g.want(t, http.StatusCreated, http.MethodPut, u, "", "")
		g.want(t, http.StatusOK, http.MethodGet, u, "/connect/", "")
	}
	eventually(t, "word of an agent", func() (bool, error) {
		return strings.Contains(g.want(t, http.StatusOK, http.MethodGet, speaking, "", "").Reason, "it says"), nil
	})
	f.away.Store(true)
	defer f.away.Store(false)
	g.want(t, http.StatusOK, http.MethodGet, silent, "/connect/", "") // it was there a moment ago
	ahead.Add(int64(time.Minute))
	g.want(t, http.StatusOK, http.MethodGet, speaking, "/connect/", "")
	began := time.Now()
	s := g.want(t, http.StatusServiceUnavailable, http.MethodGet, silent, "/connect/", "")
	if s.problem.Code != "unavailable" || !strings.Contains(s.problem.Detail, "API server does not answer") {
		t.Errorf("an agent of which nobody knows: %s", s.body)
	}
	if held := time.Since(began); held < 10*time.Second {
		t.Errorf("a request was held for %s while the API server was away, want about 15s", held)
	}
	time.AfterFunc(2*time.Second, func() { f.away.Store(false) })
	g.want(t, http.StatusOK, http.MethodGet, silent, "/connect/", "")
}
