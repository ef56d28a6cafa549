package inject_test

import (
	"os"
	"path/filepath"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/workload"
)

// FuzzInject holds injection to its promises on whatever can be decoded.
func FuzzInject(f *testing.F) {
	files, err := filepath.Glob("testdata/*/in.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds: ", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		seed, err := yaml.YAMLToJSON(data)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed, false)
		f.Add(seed, true)
	}
	for _, seed := range []string{
		`{}`, `null`, `{"spec":{"template":{"spec":{"containers":[null]}}}}`, `{"spec":{"template":{"spec":{"containers":[{"name":"a"}]}}}}`,
		`{"metadata":null,"spec":{"template":{"metadata":null,"spec":{"containers":[{"name":"a","env":[null]}],"volumes":[null]}}}}`,
	} {
		f.Add([]byte(seed), true)
	}
	user, role := injector(f, userNamespace, sidecarImage), injector(f, roleNamespace, sidecarImage)
	f.Fuzz(func(t *testing.T, data []byte, isRole bool) {
		in := user
		if isRole {
			in = role
		}
		o, err := workload.Decode(appsv1.SchemeGroupVersion.WithKind("Deployment"), data)
		if err != nil {
			return
		}
		opts := inject.Options{RestartRules: true}
		patch, _ := in.Deployment(o.Deployment, nil, opts)
		patched := apply(t, data, patch)
		again := decode(t, patched)
		if !apiequality.Semantic.DeepEqual(again, o.Deployment) {
			t.Errorf("the patch makes\n%s\nand the typed change\n%s", patched, marshal(t, o.Deployment))
		}
		if patch, warnings := in.Deployment(again, nil, opts); len(patch) > 0 || len(warnings) > 0 {
			t.Errorf("a second injection patches %s and warns %q", marshal(t, patch), warnings)
		}
	})
}
