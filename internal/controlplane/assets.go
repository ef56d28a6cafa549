package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

var moduleLine = regexp.MustCompile(`(?m)^module github\.com/dexorder/agent-lifecycle\r?$`)

// findAssets is the directory of the control plane's programs.
func findAssets(ctx context.Context, controllerManager bool) (string, error) {
	programs := []string{"kube-apiserver", "etcd", "kubectl"}
	var flags []string
	if controllerManager {
		programs = append(programs, "kube-controller-manager")
		flags = append(flags, "--with-controller-manager")
	}
	if dir := os.Getenv("KUBEBUILDER_ASSETS"); dir != "" && complete(dir, programs) {
		return dir, nil
	}
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("controlplane: KUBEBUILDER_ASSETS names no directory with %v, and %w", programs, err)
	}
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(root, "tools", "assets"), flags...)
	// The script may build for minutes: its progress belongs on the terminal.
	cmd.Stdout, cmd.Stderr = &stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("controlplane: %s: %w", cmd, err)
	}
	return string(bytes.TrimSpace(stdout.Bytes())), nil
}

func complete(dir string, programs []string) bool {
	for _, program := range programs {
		if _, err := os.Stat(filepath.Join(dir, program)); err != nil {
			return false
		}
	}
	return true
}

// moduleRoot is the checkout that the working directory is in. `go test` and `go run` give no better hint: paths
// compiled into a binary are gone with -trimpath.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		content, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && moduleLine.Match(content) {
			return dir, nil
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory is in no checkout of agent-lifecycle")
		}
		dir = parent
	}
}
