package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// auditPolicy records each request once, when it has been answered.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
`

// startAPIServer runs etcd and kube-apiserver, and writes the administrator's kubeconfig.
func (cp *ControlPlane) startAPIServer(ctx context.Context, opts Options) error {
	for _, sub := range []string{"data", "certs"} {
		if err := os.Mkdir(cp.path(sub), 0o700); err != nil {
			return fmt.Errorf("controlplane: %w", err)
		}
	}
	etcd := &envtest.Etcd{DataDir: cp.path("data"), StartTimeout: startTimeout}
	api := &envtest.APIServer{CertDir: cp.path("certs"), StartTimeout: startTimeout}

	var err error
	if etcd.Path, err = cp.guard.wrap(filepath.Join(cp.assetsDir, "etcd")); err != nil {
		return err
	}
	if api.Path, err = cp.guard.wrap(filepath.Join(cp.assetsDir, "kube-apiserver")); err != nil {
		return err
	}
	etcdLog, err := newLog(cp.path("etcd.log"))
	if err != nil {
		return err
	}
	defer etcdLog.Close()
	apiLog, err := newLog(cp.path("kube-apiserver.log"))
	if err != nil {
		return err
	}
	defer apiLog.Close()
	etcd.Out, etcd.Err, api.Out, api.Err = etcdLog.File, etcdLog.File, apiLog.File, apiLog.File

	if err := cp.configure(api, opts); err != nil {
		return err
	}
	cp.env = &envtest.ControlPlane{APIServer: api, Etcd: etcd, KubectlPath: cp.Kubectl()}
	if err := cp.env.Start(); err != nil {
		return fmt.Errorf("controlplane: %w\n%s%s", err, etcdLog.tail(), apiLog.tail())
	}

	admin, err := cp.env.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, &rest.Config{QPS: -1})
	if err != nil {
		return fmt.Errorf("controlplane: adding the administrator: %w", err)
	}
	cp.Config = admin.Config()
	kubeconfig, err := admin.KubeConfig()
	if err != nil {
		return fmt.Errorf("controlplane: the administrator's kubeconfig: %w", err)
	}
	if err := os.WriteFile(cp.Kubeconfig(), kubeconfig, 0o600); err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	return cp.awaitNamespace(ctx)
}

// configure sets the flags in which a real cluster differs from envtest's defaults, then the caller's.
func (cp *ControlPlane) configure(api *envtest.APIServer, opts Options) error {
	if err := writeSigningKey(cp.signingKey()); err != nil {
		return err
	}
	flags := api.Configure()
	flags.Set("service-account-signing-key-file", cp.signingKey())
	// kube-apiserver takes the public half from a file of the private key.
	flags.Set("service-account-key-file", cp.signingKey())
	if !opts.WithoutServiceAccountAdmission {
		flags.Disable("disable-admission-plugins")
	}
	if opts.AuditLog != "" {
		policy := cp.path("audit-policy.yaml")
		if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
			return fmt.Errorf("controlplane: %w", err)
		}
		flags.Set("audit-policy-file", policy)
		flags.Set("audit-log-path", opts.AuditLog)
		// A test reads the line as soon as it has the answer.
		flags.Set("audit-log-mode", "blocking-strict")
	}
	for name, values := range opts.APIServerFlags {
		flags.Set(name, values...)
	}
	return nil
}

// awaitNamespace waits for the namespace default, which the API server creates shortly after it reports health.
func (cp *ControlPlane) awaitNamespace(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(cp.Config)
	if err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, startTimeout, true,
		func(ctx context.Context) (bool, error) {
			_, err := client.CoreV1().Namespaces().Get(ctx, corev1.NamespaceDefault, metav1.GetOptions{})
			return err == nil, nil
		})
	if err != nil {
		return fmt.Errorf("controlplane: waiting for the namespace %s: %w", corev1.NamespaceDefault, err)
	}
	return nil
}

func (cp *ControlPlane) path(name string) string { return filepath.Join(cp.dir, name) }

// signingKey is the key of service account tokens: the API server signs bound ones with it and verifies all.
func (cp *ControlPlane) signingKey() string { return cp.path("service-account.key") }

func writeSigningKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("controlplane: service account key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return fmt.Errorf("controlplane: service account key: %w", err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	if err := os.WriteFile(path, block, 0o600); err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	return nil
}
