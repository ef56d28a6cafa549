package manifests

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// patience bounds what the API server does in its own time: it learns of webhooks and admission policies by watch.
const patience = 30 * time.Second

// TestOnAPIServer shares one API server among the tests that need a real one. It comes up in seconds, and they do not
// disturb one another when they run in this order.
func TestOnAPIServer(t *testing.T) {
	cp := controlplane.StartForTest(t, controlplane.Options{WithoutServiceAccountAdmission: true})
	t.Run("install", func(t *testing.T) { testInstall(t, cp) })
	t.Run("system policies", func(t *testing.T) { testSystemPolicies(t, cp) })
	t.Run("match conditions", func(t *testing.T) { testMatchConditions(t, cp) })
	t.Run("self-delete", func(t *testing.T) { testSelfDelete(t, cp) })
	t.Run("keep", func(t *testing.T) { testKeep(t, cp) })
	t.Run("reaping", func(t *testing.T) { testReaping(t, cp) })
	t.Run("reaper's writes", func(t *testing.T) { testReaperWrites(t, cp) })
}

// testInstall applies one installation over the other, each of them twice.
func testInstall(t *testing.T, cp *controlplane.ControlPlane) {
	installCertManagerTypes(t, cp.Config)
	for _, name := range installations {
		t.Run(name, func(t *testing.T) {
			objects := render(t, name)
			apply := newApplier(t, cp.Config)
			apply.all(t, objects)
			apply.writeBundles(t)
			first := apply.all(t, objects)
			apply.checkBundles(t)
			if diff := cmp.Diff(first, apply.all(t, objects)); diff != "" {
				t.Errorf("applied again, resource versions changed (-first +second):\n%s", diff)
			}
			apply.checkWarnings(t)
		})
	}
	t.Run("examples", func(t *testing.T) {
		// The registrations above call a Service that nothing serves.
		unregister(t, cp.Config)
		rendered, err := filepath.Glob("examples/*.yaml")
		if err != nil || len(rendered) == 0 {
			t.Fatalf("no examples: %v", err)
		}
		apply := newApplier(t, cp.Config)
		for _, path := range rendered {
			apply.all(t, readFile(t, path))
		}
		apply.checkWarnings(t)
	})
}

// applier is an Applier that hears what the API server warns of.
type applier struct {
	*Applier
	typed    kubernetes.Interface
	warnings *warnings
}

func newApplier(t *testing.T, config *rest.Config) applier {
	t.Helper()
	heard := &warnings{}
	config = rest.CopyConfig(config)
	config.WarningHandler = heard
	a, err := NewApplier(config)
	if err != nil {
		t.Fatal(err)
	}
	return applier{Applier: a, typed: kubernetes.NewForConfigOrDie(config), warnings: heard}
}

// all applies objects and returns their resource versions.
func (a applier) all(t *testing.T, objects []*unstructured.Unstructured) map[string]string {
	t.Helper()
	stored, err := a.Apply(t.Context(), objects)
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, object := range stored {
		versions[object.GetKind()+"/"+object.GetName()] = object.GetResourceVersion()
	}
	return versions
}

// writeBundles does what the server does when it runs.
func (a applier) writeBundles(t *testing.T) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	bundlePatch := func(webhook string) []byte {
		return fmt.Appendf(nil, `{"webhooks": [{"name": %q, "clientConfig": {"caBundle": %q}}]}`,
			webhook, base64.StdEncoding.EncodeToString(bundleOf(server)))
	}
	registrations := a.typed.AdmissionregistrationV1()
	options := metav1.PatchOptions{FieldManager: "lifecycle-webhook"}
	for _, webhook := range []string{"mutate.lifecycle.dexorder.io", "stamp.lifecycle.dexorder.io"} {
		_, err := registrations.MutatingWebhookConfigurations().Patch(t.Context(), registrationName,
			types.StrategicMergePatchType, bundlePatch(webhook), options)
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, webhook := range []string{"validate.lifecycle.dexorder.io", "policy.lifecycle.dexorder.io"} {
		_, err := registrations.ValidatingWebhookConfigurations().Patch(t.Context(), registrationName,
			types.StrategicMergePatchType, bundlePatch(webhook), options)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// checkBundles fails when applying the manifests again took the server's caBundle away.
func (a applier) checkBundles(t *testing.T) {
	t.Helper()
	registrations := a.typed.AdmissionregistrationV1()
	mutating, err := registrations.MutatingWebhookConfigurations().Get(t.Context(), registrationName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, err := registrations.ValidatingWebhookConfigurations().Get(t.Context(), registrationName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]admissionregistrationv1.WebhookClientConfig{}
	for _, webhook := range mutating.Webhooks {
		calls[webhook.Name] = webhook.ClientConfig
	}
	for _, webhook := range validating.Webhooks {
		calls[webhook.Name] = webhook.ClientConfig
	}
	for name, call := range calls {
		if len(call.CABundle) == 0 {
			t.Errorf("%s: a second apply emptied caBundle", name)
		}
	}
}

// bundleOf is the caBundle by which a test server is trusted.
func bundleOf(server *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
}

func (a applier) checkWarnings(t *testing.T) {
	t.Helper()
	for _, text := range a.warnings.all() {
		t.Errorf("the API server warns: %s", text)
	}
}

// warnings are what the API server had to say beside its answers. Namespaces warn about Pods that are not restricted.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _ string, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.texts
}

// installCertManagerTypes teaches the API server cert-manager's types, from the version that this module is built with.
func installCertManagerTypes(t *testing.T, config *rest.Config) {
	t.Helper()
	dir, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatal(err)
	}
	_, err = envtest.InstallCRDs(config, envtest.CRDInstallOptions{
		Paths:              []string{filepath.Join(strings.TrimSpace(string(dir)), "deploy", "crds")},
		ErrorIfPathMissing: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// unregister removes the webhooks and waits until the API server no longer calls them.
func unregister(t *testing.T, config *rest.Config) {
	t.Helper()
	client := kubernetes.NewForConfigOrDie(config)
	registrations := client.AdmissionregistrationV1()
	for _, err := range []error{
		registrations.MutatingWebhookConfigurations().Delete(t.Context(), registrationName, metav1.DeleteOptions{}),
		registrations.ValidatingWebhookConfigurations().Delete(t.Context(), registrationName, metav1.DeleteOptions{}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the API server still calls webhooks that are gone", func(ctx context.Context) bool {
		_, err := client.CoreV1().Pods("dexorder-agents").Create(ctx, newPod("probe"), dryRunCreate)
		return err == nil
	})
}

var dryRunCreate = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// eventually polls until the condition holds.
func eventually(t *testing.T, otherwise string, condition func(context.Context) bool) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true,
		func(ctx context.Context) (bool, error) { return condition(ctx), nil })
	if err != nil {
		t.Fatalf("%s after %s", otherwise, patience)
	}
}

func createNamespace(t *testing.T, client kubernetes.Interface, name string) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}
