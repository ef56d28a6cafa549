package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const agents = "dexorder-agents"

// TestServe runs the program against a real API server with the registrations of the manifests.
func TestServe(t *testing.T) {
	cp := controlplane.StartForTest(t, controlplane.Options{WithoutServiceAccountAdmission: true})
	api := kubernetes.NewForConfigOrDie(cp.Config)
	for _, name := range []string{defaultNamespace, agents} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := api.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	policyFile := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, policyFile, v1alpha1.Example())
	port := freePort(t)
	register(t, api, port)

	server := start(t, &flags{
		policy: policyFile, kubeconfig: cp.Kubeconfig(), namespace: defaultNamespace, service: "lifecycle-webhook",
		listen: "127.0.0.1:" + port, healthListen: "127.0.0.1:" + freePort(t), configuration: "agent-lifecycle",
		certs: certsSelfManaged, caSecret: "lifecycle-webhook-ca", dnsNames: []string{"localhost"}, logs: program.Log{Level: slog.LevelInfo},
	})
	server.waitFor(t, "/readyz?verbose", "[+]certificate ok", "[+]cluster ok", "[+]policy ok", "[+]coverage ok", "check passed")

	t.Run("injects", func(t *testing.T) {
		stored, err := api.AppsV1().Deployments(agents).Create(t.Context(), exampleAgent(t), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(stored.Spec.Template.Spec.Containers, func(c corev1.Container) bool {
			return c.Name == lifecycle.SidecarContainer
		}) {
			t.Errorf("the stored Deployment has no sidecar: %v", stored.Spec.Template.Spec.Containers)
		}
	})
	t.Run("refuses", func(t *testing.T) {
		d := exampleAgent(t)
		d.Name, d.Spec.Template.Spec.Containers[0].Image = "foreign", "docker.io/library/nginx"
		_, err := api.AppsV1().Deployments(agents).Create(t.Context(), d, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "image-allowlist") {
			t.Errorf("a foreign image: %v, want it forbidden by the image-allowlist", err)
		}
		server.waitFor(t, "/metrics", `agent_lifecycle_admission_decisions_total{kind="Deployment",profile="user-agents",`+
			`rule="image-allowlist",verdict="deny"} 1`)
	})
	t.Run("follows the policy file", func(t *testing.T) {
		write(t, policyFile, []byte("kind: Nonsense\n"))
		server.waitFor(t, "/readyz?verbose", "[!]policy: ", "check passed")
		changed := bytes.ReplaceAll(v1alpha1.Example(), []byte("- dexorder-agents\n"), []byte("- dexorder-agents\n        - elsewhere\n"))
		write(t, policyFile, changed)
		server.waitFor(t, "/readyz?verbose", "[+]policy ok", "[!]coverage: ", "elsewhere", "check passed")
		server.waitFor(t, "/metrics", `agent_lifecycle_policy_info{hash="`+v1alpha1.Hash(changed)+`"} 1`)
	})
	server.stop(t)
}

// running is the program under test.
type running struct {
	health string
	cancel context.CancelFunc
	done   chan error
	once   sync.Once
}

func start(t *testing.T, f *flags) *running {
	t.Helper()
	f.maxBody, f.maxInFlight, f.logs.Format = 1<<20, 16, "text"
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{health: "http://" + f.healthListen, cancel: cancel, done: make(chan error, 1)}
	log := f.logs.NewLogger(t.Output())
	go func() { r.done <- serve(ctx, f, log) }()
	t.Cleanup(func() { r.stop(t) })
	return r
}

func (r *running) stop(t *testing.T) {
	r.once.Do(func() {
		r.cancel()
		if err := <-r.done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// waitFor polls a health path until it shows all that is wanted.
func (r *running) waitFor(t *testing.T, path string, wants ...string) {
	t.Helper()
	var body string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		select {
		case err := <-r.done:
			r.done <- nil
			t.Fatalf("serve ended: %v", err)
		default:
		}
		body = get(r.health + path)
		if !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(body, want) }) {
			return
		}
	}
	t.Fatalf("%s does not show %q:\n%s", path, wants, body)
}

func get(url string) string {
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

// register registers what the manifests do, at an address instead of a Service, for which there would have to be nodes.
func register(t *testing.T, api kubernetes.Interface, port string) {
	t.Helper()
	address := func(c *admissionregistrationv1.WebhookClientConfig) {
		url := fmt.Sprintf("https://localhost:%s%s", port, *c.Service.Path)
		c.Service, c.URL = nil, &url
	}
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	readYAML(t, "../../manifests/base/mutating-webhook.yaml", &mutating)
	readYAML(t, "../../manifests/base/validating-webhook.yaml", &validating)
	for i := range mutating.Webhooks {
		address(&mutating.Webhooks[i].ClientConfig)
	}
	for i := range validating.Webhooks {
		address(&validating.Webhooks[i].ClientConfig)
	}
	client := api.AdmissionregistrationV1()
	if _, err := client.MutatingWebhookConfigurations().Create(t.Context(), &mutating, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ValidatingWebhookConfigurations().Create(t.Context(), &validating, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func exampleAgent(t *testing.T) *appsv1.Deployment {
	t.Helper()
	var d appsv1.Deployment
	readYAML(t, "../../manifests/examples/agent-deployment.yaml", &d)
	return &d
}

// readYAML reads the first document of a file.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(data, []byte("\n---\n"))
	if err := yaml.UnmarshalStrict(first, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
