package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// startTimeout bounds the start of each process. It takes 3 to 6 seconds on an idle machine, several times that
// while other packages' tests compile.
const startTimeout = 90 * time.Second

// Options says what to run. The zero value is etcd and an API server.
type Options struct {
	// ControllerManager also runs kube-controller-manager, so that Deployments get ReplicaSets and Pods, namespaces
	// get their default service account, and deleted objects' dependents are collected. Start returns when it works.
	// Without it a namespace has no service account until the caller creates one, and Pods are refused until then.
	ControllerManager bool

	// WithoutServiceAccountAdmission disables the ServiceAccount admission plugin: Pods are admitted in namespaces
	// without a service account, and get no token volume.
	WithoutServiceAccountAdmission bool

	// APIServerFlags are set on kube-apiserver, over the defaults: names without dashes, one value per occurrence.
	APIServerFlags map[string][]string

	// AuditLog is a file to which the API server writes every request, at level Metadata, as JSON lines when it has
	// answered. Empty means none.
	AuditLog string
}

// ControlPlane is a running control plane. Stop must be called.
type ControlPlane struct {
	// Config is the access of an administrator, member of system:masters, without client-side rate limit.
	Config *rest.Config

	dir       string
	env       *envtest.ControlPlane
	manager   *controllerManager
	guard     *guard
	assetsDir string
}

// Start runs a control plane and returns when it serves. The programs come from $KUBEBUILDER_ASSETS or from the
// checkout's tools/assets, which may build them first. ctx bounds the start only, not the control plane's life.
// Nothing is left running when an error is returned; the error holds the end of the failing process's log.
func Start(ctx context.Context, opts Options) (_ *ControlPlane, err error) {
	assets, err := findAssets(ctx, opts.ControllerManager)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "agent-lifecycle-controlplane-")
	if err != nil {
		return nil, fmt.Errorf("controlplane: %w", err)
	}
	cp := &ControlPlane{dir: dir, assetsDir: assets}
	defer func() {
		if err != nil {
			err = errors.Join(err, cp.Stop())
		}
	}()

	if cp.guard, err = startGuard(dir); err != nil {
		return nil, err
	}
	if err := cp.startAPIServer(ctx, opts); err != nil {
		return nil, err
	}
	if opts.ControllerManager {
		if err := cp.startControllerManager(ctx, nil); err != nil {
			return nil, err
		}
	}
	return cp, nil
}

// StartControllerManager starts kube-controller-manager where Start was not asked for it, with further flags. It must be called once
// at most.
func (cp *ControlPlane) StartControllerManager(ctx context.Context, flags ...string) error {
	return cp.startControllerManager(ctx, flags)
}

// Kubeconfig is the path of a file with Config's access, for programs that take one. Stop removes it.
func (cp *ControlPlane) Kubeconfig() string { return filepath.Join(cp.dir, "kubeconfig") }

// Kubectl is the path of a kubectl of the API server's version.
func (cp *ControlPlane) Kubectl() string { return filepath.Join(cp.assetsDir, "kubectl") }

// EtcdURL is where etcd answers anybody on this machine.
func (cp *ControlPlane) EtcdURL() string { return cp.env.Etcd.URL.String() }

// Stop ends every process, in an order in which none misses another, waits for them and removes their data.
func (cp *ControlPlane) Stop() error {
	var errs []error
	if cp.manager != nil {
		errs = append(errs, cp.manager.stop())
	}
	if cp.env != nil {
		errs = append(errs, cp.env.Stop())
	}
	if cp.guard != nil {
		// Where the calls above failed, it ends what they did not.
		errs = append(errs, cp.guard.release(errors.Join(errs...) == nil))
	}
	errs = append(errs, os.RemoveAll(cp.dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("controlplane: stopping: %w", err)
	}
	return nil
}

// Impersonate is the access of somebody else, through the administrator's right to impersonate. It holds whatever
// the API server knows of a caller: name, UID, groups and extra values.
func (cp *ControlPlane) Impersonate(user rest.ImpersonationConfig) *rest.Config {
	config := rest.CopyConfig(cp.Config)
	config.Impersonate = user
	return config
}

// ServiceAccount is the identity of a service account, as its tokens carry it unless they are bound to a Pod. For
// one that is, add the extra values authentication.kubernetes.io/pod-name and authentication.kubernetes.io/pod-uid.
func ServiceAccount(namespace, name string) rest.ImpersonationConfig {
	return rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + namespace + ":" + name,
		Groups: []string{
			"system:serviceaccounts",
			"system:serviceaccounts:" + namespace,
			"system:authenticated",
		},
	}
}
