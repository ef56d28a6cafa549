package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// stopTimeout is how long kube-controller-manager may take to end before it is killed.
const stopTimeout = 20 * time.Second

// controllerManager is a running kube-controller-manager.
type controllerManager struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when exitErr is set
	// exitErr is what Wait returned.
	exitErr error
}

// startControllerManager runs kube-controller-manager and returns when its controllers have served the namespace
// default.
func (cp *ControlPlane) startControllerManager(ctx context.Context, flags []string) error {
	user, err := cp.env.AddUser(envtest.User{Name: "system:kube-controller-manager"}, &rest.Config{})
	if err != nil {
		return fmt.Errorf("controlplane: adding kube-controller-manager's user: %w", err)
	}
	kubeconfig, err := user.KubeConfig()
	if err != nil {
		return fmt.Errorf("controlplane: kube-controller-manager's kubeconfig: %w", err)
	}
	if err := os.WriteFile(cp.path("controller-manager.kubeconfig"), kubeconfig, 0o600); err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	if err := os.WriteFile(cp.path("ca.crt"), cp.Config.CAData, 0o600); err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	program, err := cp.guard.wrap(filepath.Join(cp.assetsDir, "kube-controller-manager"))
	if err != nil {
		return err
	}
	log, err := newLog(cp.path("kube-controller-manager.log"))
	if err != nil {
		return err
	}
	defer log.Close()

	cmd := exec.Command(program, append([]string{
		"--kubeconfig=" + cp.path("controller-manager.kubeconfig"),
		// One service account per controller, as kubeadm sets it up: admission sees which one acts.
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + cp.signingKey(),
		"--root-ca-file=" + cp.path("ca.crt"),
		"--leader-elect=false",
		// No port: nobody asks it for metrics, and a fixed one would collide with a second control plane.
		"--secure-port=0",
	}, flags...)...)
	cmd.Stdout, cmd.Stderr = log.File, log.File
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("controlplane: %w", err)
	}
	cp.manager = &controllerManager{cmd: cmd, exited: make(chan struct{})}
	go func() {
		cp.manager.exitErr = cmd.Wait()
		close(cp.manager.exited)
	}()
	if err := cp.awaitControllers(ctx); err != nil {
		return fmt.Errorf("controlplane: kube-controller-manager: %w\n%s", err, log.tail())
	}
	return nil
}

// awaitControllers waits for two objects that controllers make, without which no Pod can be created.
func (cp *ControlPlane) awaitControllers(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(cp.Config)
	if err != nil {
		return err
	}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, startTimeout, true,
		func(ctx context.Context) (bool, error) {
			select {
			case <-cp.manager.exited:
				return false, fmt.Errorf("ended before it served: %w", cp.manager.exitErr)
			default:
			}
			core, get := client.CoreV1(), metav1.GetOptions{}
			_, accountErr := core.ServiceAccounts(corev1.NamespaceDefault).Get(ctx, "default", get)
			_, caErr := core.ConfigMaps(corev1.NamespaceDefault).Get(ctx, "kube-root-ca.crt", get)
			return accountErr == nil && caErr == nil, nil
		})
}

// stop ends the process and waits for it.
func (m *controllerManager) stop() error {
	select {
	case <-m.exited:
		return fmt.Errorf("kube-controller-manager had ended by itself: %w", m.exitErr)
	default:
	}
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	err := m.cmd.Process.Kill()
	<-m.exited
	return errors.Join(fmt.Errorf("kube-controller-manager did not end within %s and was killed", stopTimeout), err)
}
