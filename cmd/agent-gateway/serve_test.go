package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestServe runs the program against a real API server: it gets ready, makes an agent, counts it, and ends when it is told to, with a
// stream of events open. What it does besides is shown in integration/.
func TestServe(t *testing.T) {
	cp, api := startPlane(t)
	p := startProgram(t, cp)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+p.listen+"/v1/agents/alice", strings.NewReader(`{"userType":"paid"}`))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusCreated {
		body, _ := io.ReadAll(response.Body)
		t.Fatalf("PUT: %s %s", response.Status, body)
	}
	if _, err := api.AppsV1().Deployments("dexorder-agents").Get(t.Context(), gateway.Name("alice"), metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`agent_lifecycle_gateway_agents_created_total{user_type="paid"} 1`,
		`agent_lifecycle_gateway_requests_total{code="201",route="agents"} 1`,
	} {
		if metrics := get(t, "http://"+p.health+"/metrics"); !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s:\n%s", want, metrics)
		}
	}
	events, err := http.Get("http://" + p.listen + "/v1/agents/alice/events")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	p.cancel()
	select {
	case err := <-p.done:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(8 * time.Second):
		t.Error("an open stream of events held it up")
	}
}

// TestServeTLS asks the program over TLS, and the pair that it shows is the one of the files.
func TestServeTLS(t *testing.T) {
	cp, _ := startPlane(t)
	certFile, keyFile, pool := newPair(t)
	p := startProgram(t, cp, "--tls-cert="+certFile, "--tls-key="+keyFile)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	response, err := client.Get("https://" + p.listen + "/v1/agents/alice")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("GET: %s", response.Status)
	}
}

// newPair writes a certificate for 127.0.0.1 and its key, and returns who trusts it.
func newPair(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotAfter: time.Now().Add(time.Hour),
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, pool = filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key"), x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	pool.AppendCertsFromPEM(text)
	for file, content := range map[string][]byte{certFile: text, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, pool
}

// startPlane starts an API server with the agents' namespace.
func startPlane(t *testing.T) (*controlplane.ControlPlane, kubernetes.Interface) {
	t.Helper()
	cp := controlplane.StartForTest(t, controlplane.Options{})
	api := kubernetes.NewForConfigOrDie(cp.Config)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "dexorder-agents"}}
	if _, err := api.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return cp, api
}

// running is the gateway that runs.
type running struct {
	listen, health string
	cancel         context.CancelFunc
	done           chan error
}

// startProgram runs the gateway with further flags and returns when it is ready.
func startProgram(t *testing.T, cp *controlplane.ControlPlane, args ...string) *running {
	t.Helper()
	for _, name := range podVariables {
		t.Setenv(name, "") // these tests may run in a Pod
	}
	p := &running{listen: freeAddress(t), health: freeAddress(t), done: make(chan error, 1)}
	var stderr strings.Builder
	f, err := parseFlags(append([]string{
		"--policy=../../policy/v1alpha1/example.yaml", "--template=../../manifests/components/gateway/agent.yaml", "--kubeconfig=" + cp.Kubeconfig(),
		"--listen=" + p.listen, "--health-listen=" + p.health, "--loopback-without-token", "--drain=0s", "--grace=10s",
	}, args...), io.Discard, &stderr)
	if err != nil {
		t.Fatal(stderr.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	p.cancel = cancel
	go func() { p.done <- serve(ctx, f, slog.New(slog.NewJSONHandler(t.Output(), nil))) }()
	for deadline := time.Now().Add(time.Minute); get(t, "http://"+p.health+"/readyz") != "ok\n"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not get ready")
		}
	}
	return p
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
