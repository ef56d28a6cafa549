//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// nodeName is the container that is the node of a kind cluster: kind-NAME's is NAME-control-plane.
func nodeName(t *testing.T) string {
	t.Helper()
	file, err := clientcmd.LoadFromFile(os.Getenv("E2E_KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimPrefix(file.CurrentContext, "kind-") + "-control-plane"
}

// onNode runs a command on the node, and returns its exit code and what it said.
func onNode(t *testing.T, command ...string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "docker", append([]string{"exec", nodeName(t)}, command...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, out.String()
	case errors.As(err, &exit):
		return exit.ExitCode(), out.String()
	}
	t.Fatal(err)
	return 0, ""
}

// mustOnNode is onNode where a failure ends the test.
func mustOnNode(t *testing.T, command ...string) string {
	t.Helper()
	code, out := onNode(t, command...)
	if code != 0 {
		t.Fatalf("%s: exit code %d: %s", strings.Join(command, " "), code, out)
	}
	return out
}

// makeRoom lets the node run so many Pods. A kubelet's own limit is 110, the system's included.
func makeRoom(t *testing.T, pods int64) {
	t.Helper()
	mustOnNode(t, "sh", "-c", fmt.Sprintf(`cd /var/lib/kubelet && if ! grep -qx 'maxPods: %[1]d' config.yaml; then
		sed -i '/^maxPods:/d' config.yaml && echo 'maxPods: %[1]d' >>config.yaml && systemctl restart kubelet
	fi`, pods))
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, nodeName(t), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := node.Status.Allocatable.Pods().Value(); got < pods {
			return fmt.Errorf("the node takes %d Pods, want %d", got, pods)
		}
		return nil
	})
}
