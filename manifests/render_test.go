package manifests

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// installations are what somebody may apply, with and without the components that the documentation names.
var installations = []string{
	"overlays/dev", "overlays/staging", withIsolation, withNamedCallers, withCronJob, withEmbeddedSecrets, "overlays/prod",
	withCertManager, withSecrets, withSystemIsolation,
}

const (
	withCertManager     = "overlays/prod with components/cert-manager"
	withCronJob         = "overlays/staging with components/reaper-cronjob"
	withEmbeddedSecrets = "overlays/dev with components/retain-secrets"
	withIsolation       = "overlays/staging with components/isolation"
	withNamedCallers    = "overlays/staging with components/isolation and components/system-isolation and components/webhook-callers and testdata/named-callers"
	withSecrets         = "overlays/prod with components/retain-secrets"
	withSystemIsolation = "overlays/prod with components/system-isolation"
)

// render is what kustomize makes of an installation, in the order it would be applied.
func render(t testing.TB, installation string) []*unstructured.Unstructured {
	t.Helper()
	dir := installation
	if overlay, components, ok := strings.Cut(installation, " with "); ok {
		dir = t.TempDir()
		if err := Compose(dir, overlay, strings.Split(components, " and "), nil); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := Render(t.Context(), dir, "../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return objects
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
