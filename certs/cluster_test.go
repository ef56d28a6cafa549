package certs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// shared is the API server that all integration tests of this package use, each with names of its own. It is nil
// until the first of them starts it.
var shared *controlplane.ControlPlane

var startShared = sync.OnceValue(func() (err error) {
	shared, err = controlplane.Start(context.Background(), controlplane.Options{})
	return err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if shared != nil {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// cluster is the API server as one test sees it: everything it makes there carries the test's name.
type cluster struct {
	cp     *controlplane.ControlPlane
	client kubernetes.Interface
	name   string
}

func newCluster(t *testing.T, name string) *cluster {
	t.Helper()
	if err := startShared(); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(shared.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{cp: shared, client: client, name: name}
}

func (c *cluster) registrations() Registrations {
	return Registrations{Mutating: []string{c.name}, Validating: []string{c.name}}
}

// access is a service account with just the rights that the options document, so that the tests prove them enough.
func (c *cluster) access(t *testing.T, registrationVerbs []string, secret string) *rest.Config {
	t.Helper()
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: c.name, Name: "webhook"}
	meta := metav1.ObjectMeta{Name: c.name, Namespace: c.name}
	clusterMeta := metav1.ObjectMeta{Name: c.name}

	_, err := c.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: clusterMeta,
		Rules: []rbacv1.PolicyRule{{
			APIGroups:     []string{admissionregistrationv1.GroupName},
			Resources:     []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"},
			ResourceNames: []string{c.name},
			Verbs:         registrationVerbs,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: clusterMeta,
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: c.name},
		Subjects:   []rbacv1.Subject{account},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if secret != "" {
		_, err = c.client.RbacV1().Roles(c.name).Create(t.Context(), &rbacv1.Role{
			ObjectMeta: meta,
			Rules: []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"create"}},
				{
					APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{secret},
					Verbs: []string{"get", "list", "watch", "update"},
				},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.client.RbacV1().RoleBindings(c.name).Create(t.Context(), &rbacv1.RoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: c.name},
			Subjects:   []rbacv1.Subject{account},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	return c.cp.Impersonate(controlplane.ServiceAccount(c.name, "webhook"))
}

// register makes both configurations call every one of the URLs for the ConfigMaps of this test's traffic.
func (c *cluster) register(t *testing.T, caBundle []byte, annotations map[string]string, urls ...string) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: c.name, Annotations: annotations}
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create},
		Rule: admissionregistrationv1.Rule{
			APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"},
		},
	}}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{trafficLabel: c.name}}
	fail, none := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: meta}
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: meta}
	for i, url := range urls {
		name := fmt.Sprintf("replica-%d.example.com", i)
		config := admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: caBundle}
		mutating.Webhooks = append(mutating.Webhooks, admissionregistrationv1.MutatingWebhook{
			Name: name, ClientConfig: config, Rules: rules, ObjectSelector: selector,
			FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		})
		validating.Webhooks = append(validating.Webhooks, admissionregistrationv1.ValidatingWebhook{
			Name: name, ClientConfig: config, Rules: rules, ObjectSelector: selector,
			FailurePolicy: &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
		})
	}
	registry := c.client.AdmissionregistrationV1()
	_, err := registry.MutatingWebhookConfigurations().Create(t.Context(), mutating, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = registry.ValidatingWebhookConfigurations().Create(t.Context(), validating, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// bundles returns the caBundle of every registered webhook, read live. It may be called from any goroutine.
func (c *cluster) bundles(ctx context.Context) ([][]byte, error) {
	registry := c.client.AdmissionregistrationV1()
	mutating, err := registry.MutatingWebhookConfigurations().Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	validating, err := registry.ValidatingWebhookConfigurations().Get(ctx, c.name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	var bundles [][]byte
	for _, w := range mutating.Webhooks {
		bundles = append(bundles, w.ClientConfig.CABundle)
	}
	for _, w := range validating.Webhooks {
		bundles = append(bundles, w.ClientConfig.CABundle)
	}
	return bundles, nil
}

// setBundles writes the same caBundle everywhere, as somebody with the whole object in hand would.
func (c *cluster) setBundles(t *testing.T, caBundle []byte) {
	t.Helper()
	registry := c.client.AdmissionregistrationV1()
	mutating, err := registry.MutatingWebhookConfigurations().Get(t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range mutating.Webhooks {
		mutating.Webhooks[i].ClientConfig.CABundle = caBundle
	}
	_, err = registry.MutatingWebhookConfigurations().Update(t.Context(), mutating, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, err := registry.ValidatingWebhookConfigurations().Get(t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range validating.Webhooks {
		validating.Webhooks[i].ClientConfig.CABundle = caBundle
	}
	_, err = registry.ValidatingWebhookConfigurations().Update(t.Context(), validating, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// everyBundleHolds says whether each bundle holds each of the certificates, given as PEM.
func (c *cluster) everyBundleHolds(ctx context.Context, cas ...[]byte) (bool, error) {
	bundles, err := c.bundles(ctx)
	if err != nil {
		return false, err
	}
	for _, bundle := range bundles {
		for _, ca := range cas {
			if !bytes.Contains(bundle, bytes.TrimSpace(ca)) {
				return false, nil
			}
		}
	}
	return true, nil
}

// eventually polls until done is true; the last error or nothing is told when time is up.
func eventually(t *testing.T, what string, done func() (bool, error)) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		ok, err := done()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still not so after a minute: %s (%v)", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func isReady(source Source) func() (bool, error) {
	return func() (bool, error) { err := source.Ready(); return err == nil, err }
}

// run runs a source for the length of the test, which fails if Run does.
func run(t *testing.T, source Source) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}
