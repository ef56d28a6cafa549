package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"strings"
	"testing"
	"time"

	servertls "github.com/cert-manager/cert-manager/pkg/server/tls"
	"github.com/cert-manager/cert-manager/pkg/server/tls/authority"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const caSecret = "webhook-ca"

// secretCA reads the CA in the Secret, as PEM; empty while there is none.
func (c *cluster) secretCA(ctx context.Context) []byte {
	secret, err := c.client.CoreV1().Secrets(c.name).Get(ctx, caSecret, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return secret.Data[corev1.TLSCertKey]
}

func signedBy(leaf *tls.Certificate, ca []byte) bool {
	cas := parseBundle(ca)
	return len(cas) == 1 && leaf.Leaf.CheckSignatureFrom(cas[0]) == nil
}

// TestSelfManagedRotation has two replicas, started at the same moment before anything exists, and rotates their CA
// twice while every create calls both of them, each in two configurations.
func TestSelfManagedRotation(t *testing.T) {
	c := newCluster(t, "self-managed")
	config := c.access(t, []string{"list", "watch", "patch"}, caSecret)
	var sources []Source
	var endpoints []*endpoint
	for range 2 {
		source, err := NewSelfManaged(SelfManagedOptions{
			Config: config, Logger: testLogger(t), SecretNamespace: c.name, SecretName: caSecret,
			DNSNames: []string{"localhost"}, Registrations: c.registrations(), Settle: time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, source)
		var previous *x509.Certificate
		endpoints = append(endpoints, serveAdmission(t, source.GetCertificate, func(leaf *tls.Certificate) {
			// The promise itself: by the time a leaf is served first, its CA and the one before are trusted.
			ca := parseBundle(c.secretCA(context.Background()))
			if len(ca) != 1 || leaf.Leaf.CheckSignatureFrom(ca[0]) != nil {
				t.Errorf("a leaf was served that the CA in the Secret has not signed")
				return
			}
			held := encodeBundle(ca)
			if previous != nil {
				held = encodeBundle([]*x509.Certificate{previous, ca[0]})
			}
			if ok, err := c.everyBundleHolds(context.Background(), split(held)...); !ok {
				t.Errorf("a leaf was served before its CA and the one before were in every bundle (%v)", err)
			}
			previous = ca[0]
		}))
	}
	for _, source := range sources {
		run(t, source)
	}
	for _, source := range sources {
		eventually(t, "there is a certificate, but it is not ready without configurations", func() (bool, error) {
			_, err := source.GetCertificate(nil)
			ready := source.Ready()
			return err == nil && ready != nil && strings.Contains(ready.Error(), `"self-managed" does not exist`), ready
		})
	}
	c.register(t, nil, nil, endpoints[0].url, endpoints[1].url)
	for _, source := range sources {
		eventually(t, "ready", isReady(source))
	}

	load := c.startTraffic(t)
	load.more(t, 20)
	secrets := c.client.CoreV1().Secrets(c.name)
	rotations := []struct {
		name  string
		force func() error
	}{
		{"the Secret is deleted", func() error { return secrets.Delete(t.Context(), caSecret, metav1.DeleteOptions{}) }},
		{"the Secret is emptied", func() error {
			secret, err := secrets.Get(t.Context(), caSecret, metav1.GetOptions{})
			if err != nil {
				return err
			}
			secret.Data = map[string][]byte{corev1.TLSCertKey: {}, corev1.TLSPrivateKeyKey: {}}
			_, err = secrets.Update(t.Context(), secret, metav1.UpdateOptions{})
			return err
		}},
	}
	for i, rotation := range rotations {
		before := c.secretCA(t.Context())
		if err := rotation.force(); err != nil {
			t.Fatalf("%s: %v", rotation.name, err)
		}
		for _, e := range endpoints {
			eventually(t, rotation.name+": both replicas serve a leaf of the one new CA", func() (bool, error) {
				leaves, ca := e.served(), c.secretCA(t.Context())
				return len(leaves) == i+2 && string(ca) != string(before) && signedBy(leaves[i+1], ca), nil
			})
		}
		load.more(t, 20)
	}
	load.mustNotFail(t)

	// Created, first CA, second, third: each written once, whichever replica was first.
	for kind, generation := range c.generations(t) {
		if generation != 4 {
			t.Errorf("%s was written %d times, want 3", kind, generation-1)
		}
	}
	for i, source := range sources {
		if err := source.Ready(); err != nil {
			t.Errorf("replica %d: %v", i, err)
		}
	}

	c.setBundles(t, nil)
	eventually(t, "emptied bundles are repaired", func() (bool, error) {
		return c.everyBundleHolds(t.Context(), c.secretCA(t.Context()))
	})
	eventually(t, "creates work again", func() (bool, error) { err := c.create(t.Context()); return err == nil, err })
}

func split(bundle []byte) [][]byte {
	var result [][]byte
	for _, c := range parseBundle(bundle) {
		result = append(result, encodeBundle([]*x509.Certificate{c}))
	}
	return result
}

func (c *cluster) generations(t *testing.T) map[string]int64 {
	t.Helper()
	registry := c.client.AdmissionregistrationV1()
	mutating, err := registry.MutatingWebhookConfigurations().Get(t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, err := registry.ValidatingWebhookConfigurations().Get(t.Context(), c.name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int64{kindMutating: mutating.Generation, kindValidating: validating.Generation}
}

// TestUnwrappedSourceFails shows that the traffic notices a leaf that is served too early: the library's own source,
// with a bundle that follows the Secret a few creates later.
func TestUnwrappedSourceFails(t *testing.T) {
	c := newCluster(t, "unwrapped")
	source := &servertls.DynamicSource{
		DNSNames: []string{"localhost"},
		Authority: &authority.DynamicAuthority{
			SecretNamespace: c.name, SecretName: caSecret, RESTConfig: c.cp.Config, CommonName: caCommonName,
			CADuration: defaultCADuration, LeafDuration: defaultLeafDuration,
		},
	}
	ctx, cancel := context.WithCancel(logr.NewContextWithSlogLogger(context.Background(), testLogger(t)))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = source.Start(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
	eventually(t, "there is a leaf", func() (bool, error) { return source.Healthy(), nil })

	e := serveAdmission(t, source.GetCertificate, nil)
	first := c.secretCA(t.Context())
	c.register(t, first, nil, e.url)
	eventually(t, "creates work", func() (bool, error) { err := c.create(t.Context()); return err == nil, err })

	load := c.startTraffic(t)
	load.more(t, 20)
	if err := c.client.CoreV1().Secrets(c.name).Delete(t.Context(), caSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new leaf was served", func() (bool, error) { return len(e.served()) == 2, nil })
	load.more(t, 20)
	c.setBundles(t, append(first, c.secretCA(t.Context())...))
	eventually(t, "creates work again", func() (bool, error) { err := c.create(t.Context()); return err == nil, err })
	admitted, failed := load.end()
	t.Logf("creates: %d admitted, %d failed", admitted, failed)
	if failed == 0 {
		t.Error("no create failed: the traffic of these tests cannot tell a safe rotation from an unsafe one")
	}
}

// TestSelfManagedRepair empties the bundles while a rotation waits: the CA in the Secret alone would not do, as the old
// leaf is still served.
func TestSelfManagedRepair(t *testing.T) {
	c := newCluster(t, "self-managed-repair")
	source, err := NewSelfManaged(SelfManagedOptions{
		Config: c.access(t, []string{"list", "watch", "patch"}, caSecret), Logger: testLogger(t),
		SecretNamespace: c.name, SecretName: caSecret, DNSNames: []string{"localhost"},
		Registrations: c.registrations(), Settle: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	c.register(t, nil, nil, "https://localhost:1/")
	holds := func(cas ...[]byte) func() (bool, error) {
		return func() (bool, error) { return c.everyBundleHolds(t.Context(), cas...) }
	}
	eventually(t, "there is a CA", func() (bool, error) { return len(c.secretCA(t.Context())) > 0, nil })
	first := c.secretCA(t.Context())
	eventually(t, "the CA is registered", holds(first))
	if err := c.client.CoreV1().Secrets(c.name).Delete(t.Context(), caSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is another CA", func() (bool, error) {
		ca := c.secretCA(t.Context())
		return len(ca) > 0 && string(ca) != string(first), nil
	})
	second := c.secretCA(t.Context())
	eventually(t, "both are registered", holds(first, second))
	c.setBundles(t, nil)
	eventually(t, "both are registered again", holds(first, second))
	leaf, err := source.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !signedBy(leaf, first) {
		t.Error("a leaf of the second CA is served, although it has an hour to settle")
	}
}

// TestSelfManagedRenewal lets leaves of one CA grow old under traffic.
func TestSelfManagedRenewal(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "self-managed-renewal")
	source, err := NewSelfManaged(SelfManagedOptions{
		Config: c.access(t, []string{"list", "watch", "patch"}, caSecret), Logger: testLogger(t),
		SecretNamespace: c.name, SecretName: caSecret, DNSNames: []string{"localhost"},
		Registrations: c.registrations(), LeafDuration: 12 * time.Second, Settle: 100 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	e := serveAdmission(t, source.GetCertificate, nil)
	c.register(t, nil, nil, e.url)
	eventually(t, "ready", isReady(source))
	load := c.startTraffic(t)
	load.more(t, 1)
	first := source.NotAfter()
	eventually(t, "a renewed leaf is served, well before the first expires", func() (bool, error) {
		return len(e.served()) >= 2 && source.NotAfter().After(first), nil
	})
	if !time.Now().Before(first) {
		t.Errorf("renewed after %s, when the first leaf expired", first)
	}
	load.more(t, 50)
	load.mustNotFail(t)
	for kind, generation := range c.generations(t) {
		if generation != 2 {
			t.Errorf("%s was written %d times, want once: the CA is still the same", kind, generation-1)
		}
	}
}

func TestNewSelfManagedRefuses(t *testing.T) {
	_, err := NewSelfManaged(SelfManagedOptions{LeafDuration: time.Hour, CADuration: time.Minute, Settle: -1})
	if err == nil {
		t.Fatal("accepted")
	}
	wants := []string{"Config", "SecretNamespace", "DNSNames", "Registrations", "LeafDuration 1h0m0s", "Settle"}
	for _, want := range wants {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not mention %s", err, want)
		}
	}
}

// testLogger writes to the test's log, which is shown when it fails.
func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
