package manifests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// Render runs kustomize on a directory and returns the objects in the order to apply them. It uses the kustomize in
// $KUSTOMIZE, else the one of the module at toolsModule, a path to a go.mod file.
func Render(ctx context.Context, dir, toolsModule string) ([]*unstructured.Unstructured, error) {
	command := []string{"go", "tool", "-modfile=" + toolsModule, "kustomize"}
	if binary := os.Getenv("KUSTOMIZE"); binary != "" {
		command = []string{binary}
	}
	command = append(command, "build", dir)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), err, stderr.Bytes())
	}
	objects, err := Decode(stdout.Bytes())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return objects, nil
}

// Decode reads a stream of YAML documents.
func Decode(stream []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(stream), 4096)
	for {
		var object unstructured.Unstructured
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			objects = append(objects, &object)
		}
	}
}

// Compose writes a kustomization such as a user's own: an overlay, components, and images in the form NAME:TAG. Paths
// are relative to the working directory.
func Compose(dir, overlay string, components, images []string) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	// kustomize follows links before it goes up, and a temporary directory may be behind one.
	from, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	up, err := filepath.Rel(from, here)
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "sortOptions:\n  order: fifo\nresources:\n- %s\ncomponents:\n", filepath.Join(up, overlay))
	for _, component := range components {
		fmt.Fprintf(&b, "- %s\n", filepath.Join(up, component))
	}
	b.WriteString("images:\n")
	for _, image := range images {
		// The last colon: a registry may have a port.
		colon := strings.LastIndex(image, ":")
		if colon < 0 {
			return fmt.Errorf("image %q has no tag, want NAME:TAG", image)
		}
		fmt.Fprintf(&b, "- name: %s\n  newTag: %q\n", image[:colon], image[colon+1:])
	}
	return os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(b.String()), 0o600)
}
