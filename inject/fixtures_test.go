package inject_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	operations "gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

var update = flag.Bool("update", false, "write the expected files anew; read the difference before you commit it")

// fixture is testdata/NAME/case.yaml. Beside it stand in.yaml, what a user sends; old.yaml, what was sent before and
// is stored as it was injected then; and what is expected: patch.json, warnings.yaml, and where it exists out.yaml.
type fixture struct {
	Why string `json:"why"`

	// Namespace chooses the profile. Default: dexorder-agents.
	Namespace string `json:"namespace"`

	// RestartRules says that the cluster keeps container restart rules.
	RestartRules bool `json:"restartRules"`

	// OlderSidecar says that what is stored was injected when the policy named an older sidecar.
	OlderSidecar bool `json:"olderSidecar"`

	// NoSidecar says that agents get none today, StoredWithoutSidecar that they got none when what is stored was injected.
	NoSidecar            bool `json:"noSidecar"`
	StoredWithoutSidecar bool `json:"storedWithoutSidecar"`

	// ActivityKey is the gateway's key as the server knows it, StoredActivityKey as it knew it when what is stored was injected.
	ActivityKey       string `json:"activityKey"`
	StoredActivityKey string `json:"storedActivityKey"`

	// Plain says that what is stored was never injected.
	Plain bool `json:"plain"`

	// StoredServiceLinks says that what is stored was injected before enableServiceLinks was set to false.
	StoredServiceLinks bool `json:"storedServiceLinks"`

	// StoredAgentContainer false says that what is stored was injected before the template said which container runs the agent.
	StoredAgentContainer *bool `json:"storedAgentContainer"`

	// Change (RFC 6902) makes what the user sends out of what is stored, where there is no in.yaml.
	Change []any `json:"change"`

	// Restored says that the template becomes what is stored, so that nothing restarts.
	Restored bool `json:"restored"`
}

func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*/case.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("there are no fixtures")
	}
	for _, file := range files {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			f := fixture{Namespace: userNamespace}
			if err := yaml.UnmarshalStrict(read(t, file), &f); err != nil {
				t.Fatal(err)
			}
			if f.Why == "" {
				t.Error("why: the fixture does not say what it shows")
			}
			opts := inject.Options{RestartRules: f.RestartRules, ActivityKey: f.StoredActivityKey}
			stored := f.stored(t, dir, opts)
			opts.ActivityKey = f.ActivityKey
			got := run(t, injectorOf(t, f.Namespace, sidecarImage, f.NoSidecar), f.input(t, dir, stored), stored, opts)

			golden(t, filepath.Join(dir, "patch.json"), patchLines(t, got.patch))
			var warnings []byte
			if len(got.warnings) > 0 {
				warnings = must(yaml.Marshal(got.warnings))(t)
			}
			golden(t, filepath.Join(dir, "warnings.yaml"), warnings)
			if out := filepath.Join(dir, "out.yaml"); exists(out) {
				golden(t, out, must(yaml.JSONToYAML(got.patched))(t))
			}
			if f.Restored {
				want := decode(t, stored).Spec.Template
				if diff := cmp.Diff(want, got.object.Spec.Template, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("the template is not what is stored (-stored +got):\n%s", diff)
				}
			}
		})
	}
}

func (f *fixture) stored(t *testing.T, dir string, opts inject.Options) []byte {
	t.Helper()
	file := filepath.Join(dir, "old.yaml")
	if !exists(file) {
		return nil
	}
	data := must(yaml.YAMLToJSON(read(t, file)))(t)
	if f.Plain {
		return data
	}
	sidecar := sidecarImage
	if f.OlderSidecar {
		sidecar = olderSidecar
	}
	stored := run(t, injectorOf(t, f.Namespace, sidecar, f.StoredWithoutSidecar), data, nil, opts).patched
	if f.StoredServiceLinks {
		links := `[{"op": "add", "path": "/spec/template/spec/enableServiceLinks", "value": true}]`
		stored = must(must(jsonpatch.DecodePatch([]byte(links)))(t).Apply(stored))(t)
	}
	if f.StoredAgentContainer != nil && !*f.StoredAgentContainer {
		d := decode(t, stored)
		delete(d.Spec.Template.Annotations, lifecycle.AnnotationAgentContainer)
		stored = must(json.Marshal(d))(t)
	}
	return stored
}

func (f *fixture) input(t *testing.T, dir string, stored []byte) []byte {
	t.Helper()
	if file := filepath.Join(dir, "in.yaml"); exists(file) {
		return must(yaml.YAMLToJSON(read(t, file)))(t)
	}
	return must(must(jsonpatch.DecodePatch(marshal(t, f.Change)))(t).Apply(stored))(t)
}

// patchLines writes an operation a line.
func patchLines(t *testing.T, patch []operations.Operation) []byte {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("[")
	for i := range patch {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n  ")
		b.Write(marshal(t, &patch[i]))
	}
	b.WriteString("\n]\n")
	return b.Bytes()
}

// golden compares with a file, which does not exist where nothing is expected.
func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if len(got) > 0 {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	var want []byte
	if exists(file) {
		want = read(t, file)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	return must(os.ReadFile(file))(t)
}

// must lets a test go on with a result or end.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
