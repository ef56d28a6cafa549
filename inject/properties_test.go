package inject_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	operations "gomodules.xyz/jsonpatch/v2"
	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	userNamespace = "dexorder-agents"
	roleNamespace = "agent-ceo"

	sidecarImage = "ghcr.io/dexorder/lifecycle-sidecar:v0.1.0"
	olderSidecar = "ghcr.io/dexorder/lifecycle-sidecar:v0.0.9"
)

// injector is that of the example policy with another sidecar.
func injector(t testing.TB, namespace, sidecar string) *inject.Injector {
	t.Helper()
	return injectorOf(t, namespace, sidecar, false)
}

// injectorOf is injector, of a policy by which agents may get no sidecar.
func injectorOf(t testing.TB, namespace, sidecar string, none bool) *inject.Injector {
	t.Helper()
	file, err := v1alpha1.Decode(bytes.Replace(v1alpha1.Example(), []byte(sidecarImage), []byte(sidecar), 1))
	if err != nil {
		t.Fatal(err)
	}
	if none {
		file.Sidecar.Mode = v1alpha1.SidecarNone
	}
	p, err := policy.New(file)
	if err != nil {
		t.Fatal(err)
	}
	return p.Injector(namespace)
}

func decode(t testing.TB, data []byte) *appsv1.Deployment {
	t.Helper()
	o, err := workload.Decode(appsv1.SchemeGroupVersion.WithKind("Deployment"), data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	return o.Deployment
}

// injected is what injection makes of a Deployment's JSON.
type injected struct {
	patch    []operations.Operation
	warnings []string
	object   *appsv1.Deployment
	patched  []byte
}

// run injects, and holds injection to what is true of every input: the patch does to the JSON what was done to the
// object, a second call does nothing, and nothing of the user's is touched.
func run(t testing.TB, in *inject.Injector, data, stored []byte, opts inject.Options) injected {
	t.Helper()
	var old *appsv1.Deployment
	if stored != nil {
		old = decode(t, stored)
	}
	got := injected{object: decode(t, data)}
	got.patch, got.warnings = in.Deployment(got.object, old, opts)
	got.patched = apply(t, data, got.patch)

	if fromJSON := decode(t, got.patched); !apiequality.Semantic.DeepEqual(fromJSON, got.object) {
		t.Errorf("the patch and the typed change differ (-patch +typed):\n%s\ninput:\n%s", cmp.Diff(fromJSON, got.object), data)
	}
	if again, warnings := in.Deployment(decode(t, got.patched), old, opts); len(again) > 0 || len(warnings) > 0 {
		t.Errorf("a second injection patches %s and warns %q\ninput:\n%s", marshal(t, again), warnings, data)
	}
	checkUntouched(t, data, got)
	return got
}

func apply(t testing.TB, data []byte, patch []operations.Operation) []byte {
	t.Helper()
	if len(patch) == 0 {
		return data
	}
	p, err := jsonpatch.DecodePatch(marshal(t, patch))
	if err != nil {
		t.Fatal(err)
	}
	patched, err := p.Apply(data)
	if err != nil {
		t.Fatalf("%v\npatch:\n%s\ninput:\n%s", err, marshal(t, patch), data)
	}
	return patched
}

// checkUntouched compares the JSON before and after: what no operation names is as it was, and what an operation
// replaces was the system's to replace.
func checkUntouched(t testing.TB, data []byte, got injected) {
	t.Helper()
	before, after := tree(t, data), tree(t, got.patched)
	touched := map[string]int{}
	for _, op := range got.patch {
		touched[op.Path]++
		if op.Operation == "remove" {
			touched[taken+op.Path]++
		}
		if problem := misuse(before, op); problem != "" {
			t.Errorf("operation %s %s: %s\ninput:\n%s", op.Operation, op.Path, problem, data)
		}
	}
	compare(t, "", before, after, touched)
}

func compare(t testing.TB, path string, before, after any, touched map[string]int) {
	t.Helper()
	if touched[path] > 0 {
		return
	}
	switch before := before.(type) {
	case map[string]any:
		after, ok := after.(map[string]any)
		if !ok {
			t.Errorf("%s was an object and is not any more", path)
			return
		}
		for key := range after {
			below := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
			if _, ok := before[key]; !ok && touched[below] == 0 {
				t.Errorf("%s appeared", below)
			}
		}
		for key := range before {
			below := path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
			if touched[taken+below] > 0 {
				continue
			}
			compare(t, below, before[key], after[key], touched)
		}
	case []any:
		after, ok := after.([]any)
		kept := before[:0:0]
		for i := range before {
			if touched[fmt.Sprintf("%s%s/%d", taken, path, i)] == 0 {
				kept = append(kept, before[i])
			}
		}
		before = kept
		if !ok || len(after) != len(before)+touched[path+"/-"] {
			t.Errorf("%s had %d elements and %d were added: %v", path, len(before), touched[path+"/-"], after)
			return
		}
		for i := range before {
			compare(t, fmt.Sprintf("%s/%d", path, i), before[i], after[i], touched)
		}
	default:
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s was %v and is %v", path, before, after)
		}
	}
}

// taken stands before the path of what was removed.
const taken = "-"

// ownPaths are members that belong to the system whatever stands there.
var ownPaths = []string{
	"/spec/strategy",
	"/spec/template/spec/enableServiceLinks",
	"/spec/template/spec/shareProcessNamespace",
	"/metadata/labels/lifecycle.dexorder.io~1deployment",
	"/metadata/labels/lifecycle.dexorder.io~1user-type",
	"/spec/template/metadata/labels/lifecycle.dexorder.io~1deployment",
	"/spec/template/metadata/labels/lifecycle.dexorder.io~1user-type",
	agentContainerPath,
	"/spec/template/spec/securityContext/runAsUser", // moved to the containers
}

// agentContainerPath is changed where it names a container that is gone, as fixtures show.
const agentContainerPath = "/spec/template/metadata/annotations/lifecycle.dexorder.io~1agent-container"

// ownNames are the elements of lists that belong to the system.
var ownNames = []string{
	lifecycle.SidecarContainer, lifecycle.RunVolume, lifecycle.TokenVolume, lifecycle.EnvUserType,
	lifecycle.EnvEnableIdleShutdown, lifecycle.EnvIdleTimeoutMinutes, lifecycle.EnvIdleCheckIntervalSeconds,
	lifecycle.EnvIdleWarningSeconds, lifecycle.EnvIdleSnoozeMaxMinutes, lifecycle.EnvIdleGraceSeconds,
	lifecycle.EnvActivityKey, lifecycle.EnvActivityAudience,
}

// misuse says why an operation is not ours to make; empty if it is.
func misuse(before any, op operations.Operation) string {
	had := at(before, op.Path)
	switch {
	case strings.HasSuffix(op.Path, "/-"), slices.Contains(ownPaths, op.Path):
		return ""
	case op.Operation == "add":
		if had == nil || had == "" { // An empty string is as good as absent.
			return ""
		}
		if meta, ok := had.(map[string]any); ok && (strings.HasSuffix(op.Path, "/metadata") || strings.HasSuffix(op.Path, "/metadata/annotations")) && isEmpty(meta) {
			return ""
		}
		return fmt.Sprintf("it had the value %v", had)
	case op.Operation == "replace":
		if element, ok := had.(map[string]any); ok {
			if name, _ := element["name"].(string); slices.Contains(ownNames, name) {
				return ""
			}
		}
		return fmt.Sprintf("it was the user's: %v", had)
	case op.Operation == "remove":
		if element, ok := had.(map[string]any); ok {
			if name, _ := element["name"].(string); name == lifecycle.SidecarContainer || name == lifecycle.TokenVolume {
				return ""
			}
		}
		if strings.HasSuffix(op.Path, "/restartPolicy") || strings.HasSuffix(op.Path, "/restartPolicyRules") {
			return "" // those that were injected, as fixtures show
		}
		return fmt.Sprintf("it was the user's: %v", had)
	default:
		return "nothing else is expected"
	}
}

// isEmpty says whether an object holds nothing but nulls, empty maps and empty lists.
func isEmpty(object map[string]any) bool {
	for _, value := range object {
		if v := reflect.ValueOf(value); v.IsValid() && (v.Kind() != reflect.Map && v.Kind() != reflect.Slice || v.Len() > 0) {
			return false
		}
	}
	return true
}

// at returns the value that a JSON pointer leads to, nil if there is none.
func at(v any, pointer string) any {
	for _, token := range strings.Split(pointer, "/")[1:] {
		token = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		switch parent := v.(type) {
		case map[string]any:
			v = parent[token]
		case []any:
			var i int
			if _, err := fmt.Sscan(token, &i); err != nil || i >= len(parent) {
				return nil
			}
			v = parent[i]
		default:
			return nil
		}
	}
	return v
}

func tree(t testing.TB, data []byte) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
