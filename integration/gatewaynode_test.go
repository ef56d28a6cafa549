package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// node is what a kubelet would be: agents answer over HTTP, their lifecycle managers are real, and Pods have a status. Its agents
// live as long as their Pods.
type node struct {
	c *cluster

	mu     sync.Mutex
	agents map[types.UID]*running

	// hold keeps Pods of an agent from being ready, by the agent's name.
	hold map[string]bool

	// idle is how the lifecycle managers of agents are set up, by the agent's name.
	idle map[string]idle.Config
}

// running is one agent.
type running struct {
	pod     string
	agent   *httptest.Server
	manager *httptest.Server
	idle    *idle.Manager
	stop    context.CancelFunc
	ended   chan error

	mu       sync.Mutex
	requests map[string]int // by path
	last     http.Header
}

func startNode(t *testing.T, c *cluster) *node {
	n := &node{c: c, agents: map[types.UID]*running{}, hold: map[string]bool{}, idle: map[string]idle.Config{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n.sync(ctx, t)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		for _, r := range n.agents {
			r.end()
		}
	})
	return n
}

func (n *node) sync(ctx context.Context, t *testing.T) {
	var pods corev1.PodList
	if err := n.c.Client.List(ctx, &pods, client.InNamespace(agents), client.HasLabels{lifecycle.LabelDeployment}); err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	there := map[types.UID]bool{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		name := pod.Labels[lifecycle.LabelDeployment]
		there[pod.UID] = pod.DeletionTimestamp == nil
		if n.hold[name] || pod.DeletionTimestamp != nil || n.agents[pod.UID] != nil {
			continue
		}
		config, has := n.idle[name]
		if !has {
			config = idle.Config{CheckInterval: time.Minute, Timeout: time.Hour, SnoozeMax: time.Hour}
		}
		n.agents[pod.UID] = startAgent(pod.Name, config)
		if err := n.report(ctx, pod, 0); err != nil {
			t.Logf("status of %s: %v", pod.Name, err)
			n.agents[pod.UID].end()
			delete(n.agents, pod.UID)
		}
	}
	for uid, r := range n.agents {
		if !there[uid] {
			r.end()
			delete(n.agents, uid)
		}
	}
}

// report writes the status of a Pod whose agent runs, or has ended with a code.
func (n *node) report(ctx context.Context, pod *corev1.Pod, code int32) error {
	pod = pod.DeepCopy()
	began, ready := metav1.NewTime(time.Now().Add(-time.Minute)), corev1.ConditionTrue
	pod.Status.Phase, pod.Status.StartTime, pod.Status.PodIP = corev1.PodRunning, &began, "192.0.2.1"
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	pod.Status.ContainerStatuses = nil
	for _, container := range pod.Spec.Containers {
		status := corev1.ContainerStatus{Name: container.Name, Image: container.Image, ContainerID: "containerd://" + container.Name, Ready: true}
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: began}
		if container.Name == lifecycle.AgentContainer && code != 0 {
			ready, status.Ready = corev1.ConditionFalse, false
			status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: code, StartedAt: began, FinishedAt: metav1.Now(), ContainerID: status.ContainerID,
			}}
		}
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, status)
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: metav1.Now()}}
	pod.ResourceVersion = ""
	return n.c.Client.Status().Update(ctx, pod)
}

// address is where a port of a Pod really answers.
func (n *node) address(pod *corev1.Pod, port int32) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.agents[pod.UID]
	switch {
	case r == nil:
		return "127.0.0.1:1"
	case port == lifecycle.ManagerPort:
		return strings.TrimPrefix(r.manager.URL, "http://")
	}
	return strings.TrimPrefix(r.agent.URL, "http://")
}

func (n *node) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

// of returns the agent that runs, nil where none does.
func (n *node) of(t *testing.T, name string) (*running, *corev1.Pod) {
	t.Helper()
	var pods corev1.PodList
	if err := n.c.Client.List(t.Context(), &pods, client.InNamespace(agents), client.MatchingLabels{lifecycle.LabelDeployment: name}); err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range pods.Items {
		if r := n.agents[pods.Items[i].UID]; r != nil {
			return r, &pods.Items[i]
		}
	}
	return nil, nil
}

func startAgent(pod string, config idle.Config) *running {
	r := &running{pod: pod, requests: map[string]int{}, idle: idle.New(config), ended: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.idle.Run(ctx) }()
	r.manager = httptest.NewServer(idle.PublicHandler(r.idle))
	r.agent = httptest.NewServer(http.HandlerFunc(r.serve))
	return r
}

func (r *running) end() {
	r.stop()
	r.manager.CloseClientConnections()
	r.agent.CloseClientConnections()
	r.manager.Close()
	r.agent.Close()
}

func (r *running) serve(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	path := request.URL.EscapedPath()
	r.mu.Lock()
	r.requests[path]++
	r.last = request.Header.Clone()
	r.mu.Unlock()
	switch path {
	case "/die": // after it has seen the request
		panic(http.ErrAbortHandler)
	case "/upgrade":
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(conn, buffered)
		return
	}
	fmt.Fprintf(w, "%s %s %s %s %s", r.pod, request.Method, path, request.URL.RawQuery, body)
}

func (r *running) seen(path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[path]
}

// goesIdle waits until the lifecycle manager wants the agent to stop, and does what happens then: the manager ends, and a while later
// the kubelet says so.
func (n *node) goesIdle(t *testing.T, name string) {
	t.Helper()
	r, pod := n.of(t, name)
	if err := <-r.ended; !errors.Is(err, idle.ErrIdle) {
		t.Errorf("the lifecycle manager ended with %v", err)
	}
	time.Sleep(100 * time.Millisecond) // its last word goes out
	r.manager.CloseClientConnections()
	time.Sleep(time.Second)
	n.c.get(t, pod)
	if err := n.report(t.Context(), pod, lifecycle.ExitIdle); err != nil {
		t.Fatal(err)
	}
}
