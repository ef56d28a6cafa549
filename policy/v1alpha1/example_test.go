package v1alpha1

import (
	"bytes"
	"reflect"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// chosen is what the example says beside the defaults.
const chosen = `
apiVersion: lifecycle.dexorder.io/v1alpha1
kind: LifecyclePolicy
rulesRevision: 2
sidecar:
  image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0
reaper: {namespaces: {orgs: [dexorder, genbrain]}}
profiles:
  - name: user-agents
    namespaces: {names: [dexorder-agents]}
    serviceAccount: {name: agent-lifecycle, mountToken: false}
    rules:
      image-allowlist: {images: [ghcr.io/dexorder/*]}
      resource-limits: {max: {cpu: 4, memory: 16Gi}}
      references: {pullSecrets: [], csiDrivers: []}
  - name: role-agents
    namespaces: {prefixes: [agent-]}
    defaultUserType: enterprise
    adoptBefore: 2026-01-01T00:00:00Z
    rules:
      image-allowlist: {images: [ghcr.io/dexorder/*]}
      volumes: {claims: ["*"]}
      references: {secrets: ["*"], configMaps: ["*"], pullSecrets: ["*"], csiDrivers: ["*"], tokens: true}
      workload-kind: {kinds: [Deployment, Job, CronJob]}
`

func TestExampleSaysTheDefaults(t *testing.T) {
	if d := diff(decode(t, chosen), decode(t, string(Example()))); d != "" {
		t.Errorf("the example differs from its defaults and what it chooses (-want +got):\n%s", d)
	}
}

func TestExampleShowsEveryField(t *testing.T) {
	for _, name := range fieldNames(reflect.TypeFor[LifecyclePolicy]()) {
		shown := `(?m)^[^#]*\b` + name + `:`
		if name == "except" {
			shown = `(?m)^ +# except:` // servers that do not know it refuse the file, also those of nobody who needs it
		}
		if !regexp.MustCompile(shown).Match(Example()) {
			t.Errorf("the example has no field %s", name)
		}
	}
}

// fieldNames lists the names of all fields of a type and of what is in it.
func fieldNames(t reflect.Type) []string {
	switch t {
	case reflect.TypeFor[metav1.Duration](), reflect.TypeFor[metav1.Time](), reflect.TypeFor[corev1.ResourceList](), reflect.TypeFor[resource.Quantity]():
		return nil
	case reflect.TypeFor[corev1.ResourceRequirements]():
		return []string{"limits", "requests"}
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Map, reflect.Pointer:
		return fieldNames(t.Elem())
	case reflect.Struct:
		var names []string
		for i := range t.NumField() {
			if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "" {
				names = append(names, name)
			}
			names = append(names, fieldNames(t.Field(i).Type)...)
		}
		return names
	}
	return nil
}

func TestExampleIsACopy(t *testing.T) {
	copy(Example(), "changed")
	if bytes.HasPrefix(Example(), []byte("changed")) {
		t.Error("a caller changed the example")
	}
}
