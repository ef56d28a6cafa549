//go:build e2e

package installation

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kubectl runs it on the cluster and returns its exit code and everything that it said.
func kubectl(t *testing.T, arguments ...string) (int, string) {
	t.Helper()
	return run(t, cmp.Or(os.Getenv("KUBECTL"), "kubectl"), arguments)
}

// helm runs it on the cluster. The release is in the namespace default unless a test says otherwise.
func helm(t *testing.T, arguments ...string) (int, string) {
	t.Helper()
	return run(t, cmp.Or(os.Getenv("HELM"), "helm"), arguments)
}

// mustKubectl is kubectl where a failure ends the test.
func mustKubectl(t *testing.T, arguments ...string) string {
	t.Helper()
	code, said := kubectl(t, arguments...)
	if code != 0 {
		t.Fatalf("kubectl %s: exit code %d:\n%s", strings.Join(arguments, " "), code, said)
	}
	return said
}

// mustHelm is helm where a failure ends the test.
func mustHelm(t *testing.T, arguments ...string) string {
	t.Helper()
	code, said := helm(t, arguments...)
	if code != 0 {
		t.Fatalf("helm %s: exit code %d:\n%s", strings.Join(arguments, " "), code, said)
	}
	return said
}

// run ends the test when a tool does not end by itself: nobody may have to interrupt an uninstallation.
func run(t *testing.T, program string, arguments []string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	defer func(start time.Time) {
		if time.Since(start) > 3*time.Second {
			took(t, filepath.Base(program)+" "+arguments[0], start)
		}
	}(time.Now())
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s %s has not ended after %s:\n%s", program, strings.Join(arguments, " "), commandTimeout, said.String())
	}
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}
