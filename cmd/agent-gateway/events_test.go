package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/internal/natsserver"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestEventsOnNATS runs the program with a real NATS server and a real lifecycle manager: what that says of the agent's idleness is
// there for subscribers, once, and with whose it is.
func TestEventsOnNATS(t *testing.T) {
	server := natsserver.StartForTest(t, natsserver.Options{})
	cp, api := startPlane(t)
	p := startProgram(t, cp, "--nats-url="+server.URL())
	ip := startManager(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+p.listen+"/v1/agents/alice", strings.NewReader(`{"userType":"paid"}`))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	deployment, err := api.AppsV1().Deployments("dexorder-agents").Get(t.Context(), gateway.Name("alice"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	readyPod(t, api, deployment.Name, ip)

	conn, err := nats.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	consumer, err := stream.OrderedConsumer(t.Context(), events.DefaultConfig().Stream, jetstream.OrderedConsumerConfig{})
	for deadline := time.Now().Add(time.Minute); err != nil; time.Sleep(50 * time.Millisecond) { // the program makes the stream
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		consumer, err = stream.OrderedConsumer(t.Context(), events.DefaultConfig().Stream, jetstream.OrderedConsumerConfig{})
	}
	type event struct {
		Type, Source string
		Data         struct {
			Namespace, Deployment, UID, UserType, Pod string
			Time, Deadline                            time.Time
		}
	}
	next := func(subject string) event {
		t.Helper()
		message, err := consumer.Next(jetstream.FetchMaxWait(time.Minute))
		if err != nil {
			t.Fatalf("%s: %v", subject, err)
		}
		var e event
		if err := json.Unmarshal(message.Data(), &e); err != nil {
			t.Fatalf("%s: %v", message.Data(), err)
		}
		d := e.Data
		if message.Subject() != "genbrain.events."+subject || e.Source != "/agent-lifecycle/gateway" || d.Namespace != "dexorder-agents" ||
			d.Deployment != deployment.Name || d.UID != string(deployment.UID) || d.UserType != "paid" || d.Pod != "alice-pod" {
			t.Errorf("on %s there is %s, want %s of %s", message.Subject(), message.Data(), subject, deployment.Name)
		}
		return e
	}
	rests := next("agent.idle")
	warning := next("agent.warning")
	if rests.Data.Time.IsZero() || warning.Data.Deadline.IsZero() || !warning.Data.Deadline.After(rests.Data.Time) {
		t.Errorf("idle since %s, it stops at %s", rests.Data.Time, warning.Data.Deadline)
	}
	if message, err := consumer.Next(jetstream.FetchMaxWait(2 * time.Second)); err == nil {
		t.Errorf("there is more: %s %s", message.Subject(), message.Data())
	}
	p.cancel()
	if err := <-p.done; err != nil {
		t.Error(err)
	}
}

// startManager serves the lifecycle manager of an agent that is idle soon, where the gateway looks for it, and returns the address of
// what would be its Pod.
func startManager(t *testing.T) (ip string) {
	t.Helper()
	manager := idle.New(idle.Config{Enabled: true, Timeout: time.Minute, Warning: 58 * time.Second, CheckInterval: 100 * time.Millisecond})
	go func() { _ = manager.Run(t.Context()) }()
	ip = fmt.Sprintf("127.%d.%d.%d", rand.N(200)+1, rand.N(250)+1, rand.N(250)+1) // the port is taken for one address alone
	listener, err := net.Listen("tcp", fmt.Sprintf("%s:%d", ip, lifecycle.ManagerPort))
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(idle.PublicHandler(manager))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return ip
}

// readyPod makes what the cluster's controllers and a kubelet would.
func readyPod(t *testing.T, api kubernetes.Interface, deployment, ip string) {
	t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := api.CoreV1().ServiceAccounts("dexorder-agents").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod, err := api.CoreV1().Pods("dexorder-agents").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "alice-pod", Labels: map[string]string{
			lifecycle.LabelDeployment: deployment, lifecycle.LabelUserType: "paid",
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: lifecycle.AgentContainer, Image: "agent"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pod.Status.Phase, pod.Status.PodIP, pod.Status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
	if _, err := api.CoreV1().Pods("dexorder-agents").UpdateStatus(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
