//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

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
