//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// plugin builds the operator's program once, and returns the directory that holds it.
var plugin = sync.OnceValues(func() (string, error) {
	dir, err := filepath.Abs("../bin/e2e")
	if err != nil {
		return "", err
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "kubectl-agents"), "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kubectl-agents: %w: %s", err, out)
	}
	return dir, nil
})

// kubectlAgents is the operator's command line: it returns the exit code of a command and what it said.
func kubectlAgents(t *testing.T) func(arguments ...string) (int, string) {
	t.Helper()
	dir, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	return func(arguments ...string) (int, string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "kubectl-agents"),
			append(arguments, "--kubeconfig", os.Getenv("E2E_KUBECONFIG"))...)
		out, err := cmd.CombinedOutput()
		if err != nil && !errors.As(err, new(*exec.ExitError)) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), string(out)
	}
}

// enter runs a line as somebody types it, with kubectl and its plugin on the PATH and the cluster as the current one, and returns what
// is said. It fails on another exit code, and if one thing is not said.
func enter(t *testing.T, code int, says, line string) string {
	t.Helper()
	dir, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", line)
	cmd.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"), "KUBECONFIG="+os.Getenv("E2E_KUBECONFIG"))
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(string(out), says) {
		t.Fatalf("%s: exit code %d, want %d and %q:\n%s", line, got, code, says, out)
	}
	return string(out)
}
