package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// benchNamespace holds the accounts of those whose calls are counted.
const benchNamespace = "bench"

// accounts are those whose calls are counted.
var accounts = struct{ shell, reaper, installed string }{
	"system:serviceaccount:" + benchNamespace + ":shell",
	"system:serviceaccount:" + benchNamespace + ":reaper",
	"system:serviceaccount:" + installation.SystemNamespace + ":" + installation.ServerAccount,
}

// auditPolicy records the calls of those accounts alone: what fills the cluster is not slowed down by it. A watch is recorded when it
// begins, too.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  users: [%q, %q, %q]
- level: None
`

// cluster is a control plane, with a log of who asked it for what.
type cluster struct {
	*controlplane.ControlPlane
	admin kubernetes.Interface
	dir   string
}

// startCluster starts one without kube-controller-manager. What is written goes to dir, which is made.
func startCluster(ctx context.Context, dir string) (_ *cluster, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	policy := c.path("audit-policy.yaml")
	if err := os.WriteFile(policy, fmt.Appendf(nil, auditPolicy, accounts.shell, accounts.reaper, accounts.installed), 0o600); err != nil {
		return nil, err
	}
	c.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{
		WithoutServiceAccountAdmission: true,
		APIServerFlags: map[string][]string{
			"audit-policy-file": {policy}, "audit-log-path": {c.path("audit.log")}, "audit-log-mode": {"blocking"},
			"audit-log-maxsize": {"10000"}, // MB: it is read on and on, and must not be moved away
		},
	})
	if err != nil {
		return nil, err
	}
	c.admin, err = protobufClient(c.Config)
	if err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func protobufClient(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return kubernetes.NewForConfig(config)
}

func (c *cluster) namespace(ctx context.Context, name string) error {
	_, err := c.admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return ignoreExists(err)
}

// account makes a service account that is somebody by a token of its own, so that the API server queues and records its calls as it
// does in a cluster. It may do everything if all is set, else what the manifests let it do.
func (c *cluster) account(ctx context.Context, namespace, name string, all bool) (*rest.Config, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	_, err := c.admin.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if err := ignoreExists(err); err != nil {
		return nil, err
	}
	if all {
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: namespace + "-" + name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
		}
		_, err := c.admin.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
		if err := ignoreExists(err); err != nil {
			return nil, err
		}
	}
	day := int64(24 * 60 * 60)
	token, err := c.admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &day}}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("token of %s/%s: %w", namespace, name, err)
	}
	config := rest.AnonymousClientConfig(c.Config)
	config.BearerToken, config.QPS = token.Status.Token, -1
	return config, nil
}

// kubeconfig writes a configuration to a file.
func (c *cluster) kubeconfig(name string, config *rest.Config) (string, error) {
	file := c.path(name + ".kubeconfig")
	api := clientcmdapi.NewConfig()
	api.Clusters["bench"] = &clientcmdapi.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
	api.AuthInfos["bench"] = &clientcmdapi.AuthInfo{Token: config.BearerToken}
	api.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	api.CurrentContext = "bench"
	return file, clientcmd.WriteToFile(*api, file)
}

// cpu is what kube-apiserver has used, in seconds.
func (c *cluster) cpu(ctx context.Context) (float64, error) {
	samples, err := c.metrics(ctx)
	if err != nil {
		return 0, err
	}
	return samples.sum("process_cpu_seconds_total"), nil
}

func (c *cluster) metrics(ctx context.Context) (samples, error) {
	text, err := c.admin.CoreV1().RESTClient().Get().AbsPath("/metrics").Do(ctx).Raw()
	return readSamples(text), err
}

func ignoreExists(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func numbered(prefix string, n int) string { return prefix + strconv.Itoa(n) }
