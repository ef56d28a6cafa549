// Package manifests holds the tests of the installation: that every overlay renders, grants no more than it should,
// is accepted by a real API server, and sends the server exactly the requests that it has to judge.
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
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// installations are what somebody may apply. The last is what the documentation says to write for cert-manager.
var installations = []string{"overlays/dev", "overlays/staging", "overlays/prod", withCertManager}

const withCertManager = "overlays/prod with components/cert-manager"

// render is what kustomize makes of an installation, in the order it would be applied.
func render(t testing.TB, installation string) []*unstructured.Unstructured {
	t.Helper()
	dir := installation
	if overlay, component, ok := strings.Cut(installation, " with "); ok {
		dir = compose(t, overlay, component)
	}
	rendered, err := kustomize(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decodeAll(rendered)
	if err != nil {
		t.Fatalf("%s: %v", installation, err)
	}
	return objects
}

// compose writes the kustomization of a user who adds a component to an overlay.
func compose(t testing.TB, overlay, component string) string {
	t.Helper()
	dir := t.TempDir()
	// On macOS the temporary directory is behind a link, which kustomize follows before it goes up.
	from, err := filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	up, err := filepath.Rel(from, here)
	if err != nil {
		t.Fatal(err)
	}
	content := fmt.Sprintf("resources: [%s]\ncomponents: [%s]\n", filepath.Join(up, overlay), filepath.Join(up, component))
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// kustomize runs the pinned kustomize: $KUSTOMIZE, or the tool of the module in tools.
func kustomize(ctx context.Context, dir string) ([]byte, error) {
	command := []string{"go", "tool", "-modfile=../tools/go.mod", "kustomize"}
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
	if stderr.Len() > 0 {
		return nil, fmt.Errorf("%s warns: %s", strings.Join(command, " "), stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

func decodeAll(stream []byte) ([]*unstructured.Unstructured, error) {
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

// one finds the single object of that kind and name.
func one(t testing.TB, objects []*unstructured.Unstructured, kind, name string) *unstructured.Unstructured {
	t.Helper()
	var found []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == kind && o.GetName() == name {
			found = append(found, o)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s are named %s, want 1", len(found), kind, name)
	}
	return found[0]
}

// as is an object as its Go type, refusing fields that the type does not have.
func as[T any](t testing.TB, object *unstructured.Unstructured) *T {
	t.Helper()
	var typed T
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, &typed, true)
	if err != nil {
		t.Fatalf("%s %s: %v", object.GetKind(), object.GetName(), err)
	}
	return &typed
}

func ofKind[T any](t testing.TB, objects []*unstructured.Unstructured, kind string) []*T {
	t.Helper()
	var result []*T
	for _, o := range objects {
		if o.GetKind() == kind {
			result = append(result, as[T](t, o))
		}
	}
	return result
}
