package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// startCertManager builds and runs cert-manager's controllers and cainjector, from their own packages, for the length
// of the test.
func (c *cluster) startCertManager(t *testing.T) *cmclient.Clientset {
	t.Helper()
	where, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/cert-manager/cert-manager").Output()
	if err != nil {
		t.Fatalf("finding cert-manager's module: %v", err)
	}
	_, err = envtest.InstallCRDs(c.cp.Config, envtest.CRDInstallOptions{
		Paths: []string{filepath.Join(string(bytes.TrimSpace(where)), "deploy", "crds")},
	})
	if err != nil {
		t.Fatal(err)
	}

	binary := filepath.Join(t.TempDir(), "certmanager")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../tools/certmanager", "-o", binary, ".")
	build.Stderr = os.Stderr
	os.Stderr.WriteString("building cert-manager's controllers; with an empty build cache this takes minutes\n")
	began := time.Now()
	if err := build.Run(); err != nil {
		t.Fatalf("building tools/certmanager: %v", err)
	}
	t.Logf("cert-manager's controllers were built in %s", time.Since(began).Round(time.Second))

	var output bytes.Buffer
	process := exec.Command(binary, "-kubeconfig", c.cp.Kubeconfig())
	process.Stdout, process.Stderr = &output, &output
	// Should this test be killed, so is its child.
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Signal(syscall.SIGTERM)
		err := process.Wait()
		if t.Failed() {
			t.Logf("cert-manager ended with %v and said:\n%s", err, output.String())
		}
	})
	client, err := cmclient.NewForConfig(c.cp.Config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

const servingName = "serving"

// issue asks for a CA of the test's own and a serving certificate signed by it.
func (c *cluster) issue(t *testing.T, client *cmclient.Clientset) {
	t.Helper()
	named := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: c.name} }
	issuers := map[string]cmapi.IssuerConfig{
		"root": {SelfSigned: &cmapi.SelfSignedIssuer{}},
		"ca":   {CA: &cmapi.CAIssuer{SecretName: "ca"}},
	}
	for name, config := range issuers {
		_, err := client.CertmanagerV1().Issuers(c.name).Create(t.Context(), &cmapi.Issuer{
			ObjectMeta: named(name), Spec: cmapi.IssuerSpec{IssuerConfig: config},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	ecdsa := &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm}
	certificates := []*cmapi.Certificate{
		{ObjectMeta: named("ca"), Spec: cmapi.CertificateSpec{
			IsCA: true, CommonName: "webhook-ca", SecretName: "ca", PrivateKey: ecdsa,
			IssuerRef: cmmeta.IssuerReference{Name: "root", Kind: cmapi.IssuerKind},
		}},
		{ObjectMeta: named(servingName), Spec: cmapi.CertificateSpec{
			DNSNames: []string{"localhost"}, SecretName: servingName, PrivateKey: ecdsa,
			IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: cmapi.IssuerKind},
		}},
	}
	for _, certificate := range certificates {
		_, err := client.CertmanagerV1().Certificates(c.name).Create(t.Context(), certificate, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// renew asks for a new certificate before its time, as cmctl renew does, and waits until the Secret holds it.
func (c *cluster) renew(t *testing.T, client *cmclient.Clientset, name string) {
	t.Helper()
	before := c.secretData(t.Context(), name)
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		certificate, err := client.CertmanagerV1().Certificates(c.name).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		certificate.Status.Conditions = append(certificate.Status.Conditions, cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, Reason: "ManuallyTriggered",
		})
		_, err = client.CertmanagerV1().Certificates(c.name).UpdateStatus(t.Context(), certificate, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "Secret "+name+" holds another certificate", func() (bool, error) {
		data := c.secretData(t.Context(), name)
		return data != nil && !bytes.Equal(data[corev1.TLSCertKey], before[corev1.TLSCertKey]), nil
	})
}

func (c *cluster) secretData(ctx context.Context, name string) map[string][]byte {
	secret, err := c.client.CoreV1().Secrets(c.name).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return secret.Data
}

// mount keeps the Secret's contents in the volume as the kubelet does, which also leaves them there while the Secret is
// missing.
func (c *cluster) mount(t *testing.T, secret string, v *volume) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- func() error {
			var written map[string][]byte
			for ctx.Err() == nil {
				data := c.secretData(ctx, secret)
				if len(data[corev1.TLSCertKey]) > 0 && !maps.EqualFunc(data, written, bytes.Equal) {
					if err := v.write(data); err != nil {
						return err
					}
					written = data
				}
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}()
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("mounting Secret %q: %v", secret, err)
		}
	})
}

// TestCertManagerRotation lets cert-manager renew the leaf and its CA under traffic; cainjector writes the bundle.
func TestCertManagerRotation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "cert-manager")
	client := c.startCertManager(t)
	c.issue(t, client)

	v := newVolume(t)
	c.mount(t, servingName, v)
	source, err := NewMounted(MountedOptions{
		CertFile: v.path(corev1.TLSCertKey), KeyFile: v.path(corev1.TLSPrivateKeyKey), Logger: testLogger(t),
		Config: c.access(t, []string{"list", "watch"}, ""), Registrations: c.registrations(), Settle: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, source)
	e := serveAdmission(t, source.GetCertificate, nil)
	c.register(t, nil, map[string]string{cmapi.WantInjectAnnotation: c.name + "/" + servingName}, e.url)
	eventually(t, "ready with what cert-manager issued", isReady(source))
	firstCA := parseBundle(c.secretData(t.Context(), "ca")[corev1.TLSCertKey])

	load := c.startTraffic(t)
	load.more(t, 20)
	if err := c.client.CoreV1().Secrets(c.name).Delete(t.Context(), servingName, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Secret was deleted, and a new leaf is served", func() (bool, error) {
		return len(e.served()) == 2, nil
	})
	load.more(t, 20)

	c.renew(t, client, servingName)
	eventually(t, "the leaf was renewed and is served", func() (bool, error) { return len(e.served()) == 3, nil })
	load.more(t, 20)

	c.renew(t, client, "ca")
	load.more(t, 20)
	c.renew(t, client, servingName)
	secondCA := parseBundle(c.secretData(t.Context(), "ca")[corev1.TLSCertKey])
	eventually(t, "a leaf of the new CA is served", func() (bool, error) {
		leaves := e.served()
		return leaves[len(leaves)-1].Leaf.CheckSignatureFrom(secondCA[0]) == nil, nil
	})
	load.more(t, 20)
	load.mustNotFail(t)

	if firstCA[0].Equal(secondCA[0]) {
		t.Error("the CA is still the first one: no rotation was tried")
	}
	for i, leaf := range e.served()[:3] {
		if leaf.Leaf.CheckSignatureFrom(firstCA[0]) != nil {
			t.Errorf("leaf %d is not of the first CA: %s", i, describe(leaf))
		}
	}
	if ok, err := c.everyBundleHolds(t.Context(), encodeBundle(firstCA), encodeBundle(secondCA)); !ok {
		t.Errorf("cainjector did not merge the CAs (%v)", err)
	}
}

func describe(leaf *tls.Certificate) string {
	var names []string
	for _, der := range leaf.Certificate {
		if c, err := x509.ParseCertificate(der); err == nil {
			names = append(names, c.Issuer.String())
		}
	}
	return strings.Join(names, ", ")
}
