package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/policy"
)

// The files of docs/install.md, "Only the API server is heard".
const (
	admissionConfiguration = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: MutatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: %[1]s
- name: ValidatingAdmissionWebhook
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: WebhookAdmissionConfiguration
    kubeConfigFile: %[1]s
`
	admissionKubeconfig = `apiVersion: v1
kind: Config
users:
- name: %s
  user:
    client-certificate: %s
    client-key: %s
`
)

// A real API server shows the certificate that its AdmissionConfiguration names, and is heard; who has none is not.
func TestAPIServerShowsItsCertificate(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, data, 0o600))
		return path
	}
	authority := newAuthority(t)
	client := authority.issue(t)
	key, err := x509.MarshalECPrivateKey(client.PrivateKey.(*ecdsa.PrivateKey))
	must(t, err)
	ca, err := LoadClientCA(write("ca.crt", authority.pem), slog.New(slog.DiscardHandler))
	must(t, err)
	var judged atomic.Int32
	a, registry := newTestAdmission(&fakePolicy{review: func(*policy.Request) policy.Verdict {
		judged.Add(1)
		return policy.Verdict{}
	}})
	certificate := newCertificate(t)
	s := startServerWith(t, a, func(o *Options) {
		o.ClientCA = ca
		o.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate, nil }
	})
	host := fmt.Sprintf("localhost:%d", addressPort(t, s))
	kubeconfig := write("kubeconfig", fmt.Appendf(nil, admissionKubeconfig, host,
		write("client.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: client.Certificate[0]})),
		write("client.key", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}))))
	cp := controlplane.StartForTest(t, controlplane.Options{
		WithoutServiceAccountAdmission: true,
		APIServerFlags: map[string][]string{
			"admission-control-config-file": {write("admission.yaml", fmt.Appendf(nil, admissionConfiguration, kubeconfig))},
		},
	})
	api := kubernetes.NewForConfigOrDie(cp.Config)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: covered}}
	_, err = api.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{})
	must(t, err)
	url := "https://" + host + "/validate"
	none := admissionregistrationv1.SideEffectClassNone
	_, err = api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(),
		&admissionregistrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "test"},
			Webhooks: []admissionregistrationv1.ValidatingWebhook{{
				Name: "validate.example.org", AdmissionReviewVersions: []string{"v1"}, SideEffects: &none,
				ClientConfig: admissionregistrationv1.WebhookClientConfig{
					URL: &url, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
				},
				Rules: []admissionregistrationv1.RuleWithOperations{{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v1"}, Resources: []string{"deployments"}},
				}},
			}},
		}, metav1.CreateOptions{})
	must(t, err)
	n := 0
	waitUntil(t, "the API server asks", func() bool {
		n++
		d := newAgentDeployment(fmt.Sprintf("d-%d", n), "")
		if _, err := api.AppsV1().Deployments(covered).Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
			t.Fatalf("a create by way of the API server: %v", err)
		}
		return judged.Load() > 0
	})
	if n := metric(t, registry, `agent_lifecycle_admission_callers_total{caller="proven"}`); n == "0" || n == "" {
		t.Errorf("%q proven callers", n)
	}
	before := judged.Load()
	response, err := newClient(nil, true).Post(url, "application/json", bytes.NewReader(reviewOf(t, newRequest(t))))
	must(t, err)
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized || judged.Load() != before {
		t.Errorf("past the API server: %v; want 401 and no verdict", response)
	}
}

func addressPort(t *testing.T, s *testServer) uint16 {
	t.Helper()
	address, err := netip.ParseAddrPort(s.admission.Addr().String())
	must(t, err)
	return address.Port()
}
