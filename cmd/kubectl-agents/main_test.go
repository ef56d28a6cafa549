package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// result is what a run left behind.
type result struct {
	code     int
	out, err string
}

func runWith(stdin string, args ...string) result {
	var out, err bytes.Buffer
	code := run(args, streams{strings.NewReader(stdin), &out, &err})
	return result{code, out.String(), err.String()}
}

// TestGolden runs the plugin and compares everything it says, to the letter.
func TestGolden(t *testing.T) {
	windows := asOnWindows(t, "testdata/good.yaml")
	tests := []struct {
		name  string
		args  string
		stdin string
		code  int
	}{
		{name: "check-admitted", args: "check -f testdata/good.yaml"},
		{name: "check-denied", args: "check -f testdata/good.yaml -f testdata/bad.yaml", code: 1},
		{name: "check-json", args: "check -f testdata/bad.yaml -f testdata/good.yaml -o json", code: 1},
		{name: "check-github", args: "check -f testdata/bad.yaml -o github", code: 1},
		{name: "check-not-understood", args: "check -f testdata/broken.yaml", code: 2},
		{name: "check-not-understood-json", args: "check -f testdata/broken.yaml -o json", code: 2},
		{name: "check-unreadable", args: "check -f testdata/none.yaml -f testdata/good.yaml", code: 2},
		{name: "check-empty", args: "check -f testdata/empty.yaml -o json", code: 2},
		{name: "check-empty-among-others", args: "check -f testdata/empty.yaml -f testdata/good.yaml"},
		{name: "check-directory", args: "check -f testdata/dir"},
		{name: "check-custom", args: "check -f testdata/custom.yaml", code: 1},
		{name: "check-stdin", args: "check -f -", stdin: windows},
		{name: "check-stdin-github", args: "check --filename=- --output=github", stdin: "kind: Pod\n", code: 2},
		{name: "check-policy", args: "check -f testdata/bad.yaml --policy testdata/policy.yaml -n lab", code: 1},
		{name: "check-uncovered", args: "check -f testdata/good.yaml --namespace default"},
		{name: "check-bad-policy", args: "check -f testdata/good.yaml --policy testdata/bad-policy.yaml", code: 2},
		{name: "check-no-policy", args: "check -f testdata/good.yaml --policy testdata/none.yaml", code: 2},
		{name: "check-no-files", args: "check", code: 2},
		{name: "check-bad-flag", args: "check --file testdata/good.yaml", code: 2},
		{name: "check-bad-output", args: "check -f testdata/good.yaml -o yaml", code: 2},
		{name: "check-bad-namespace", args: "check -f testdata/good.yaml --namespace=", code: 2},
		{name: "check-argument", args: "check testdata/good.yaml", code: 2},
		{name: "check-help", args: "check --help"},

		{name: "inject-yaml", args: "inject -f testdata/good.yaml"},
		{name: "inject-directory", args: "inject -f testdata/dir"},
		{name: "inject-diff", args: "inject -f testdata/bad.yaml --diff"},
		{name: "inject-diff-json", args: "inject -f testdata/good.yaml --diff -o json", code: 2},
		{name: "inject-uncovered", args: "inject -f testdata/good.yaml -n default"},
		{name: "inject-not-understood", args: "inject -f testdata/good.yaml -f testdata/broken.yaml", code: 2},
		{name: "inject-unreadable", args: "inject -f testdata/good.yaml -f testdata/none.yaml", code: 2},
		{name: "inject-bad-output", args: "inject -f testdata/good.yaml -o text", code: 2},
		{name: "inject-help", args: "help inject"},

		{name: "audit-help", args: "audit --help"},
		{name: "audit-bad-output", args: "audit -o yaml", code: 2},
		{name: "audit-bad-policy", args: "audit --policy testdata/bad-policy.yaml", code: 2},
		{name: "audit-no-cluster", args: "audit --policy testdata/policy.yaml --kubeconfig testdata/none.yaml", code: 2},
		{name: "audit-two-namespaces", args: "audit -A -n dexorder-agents", code: 2},
		{name: "adopt-help", args: "adopt --help"},
		{name: "adopt-bad-rate", args: "adopt --rate 10", code: 2},
		{name: "adopt-bad-selector", args: "adopt -l a=b=c", code: 2},
		{name: "adopt-bad-duration", args: "adopt --ready-within 0s", code: 2},
		{name: "adopt-no-cluster", args: "adopt --kubeconfig testdata/none.yaml", code: 2},
		{name: "upgrade-help", args: "upgrade --help"},
		{name: "upgrade-bad-rate", args: "upgrade --only-idle --rate 0/m", code: 2},
		{name: "list-help", args: "list --help"},
		{name: "status-help", args: "status --help"},
		{name: "status-no-name", args: "status", code: 2},
		{name: "status-two", args: "status ada bob", code: 2},
		{name: "status-no-cluster", args: "status ada --kubeconfig testdata/none.yaml", code: 2},
		{name: "list-no-cluster", args: "list --kubeconfig testdata/none.yaml", code: 2},

		{name: "provision-help", args: "provision --help"},
		{name: "provision-no-role", args: "provision --org dexorder", code: 2},
		{name: "provision-no-flags", args: "provision marketing", code: 2},
		{name: "provision-no-org", args: "provision Marketing --env production --dry-run", code: 2},
		{name: "provision-bad-component", args: "provision ceo --org dexorder --env production --with git --dry-run", code: 2},
		{name: "provision-dry-run", args: "provision ceo --org dexorder --env production --image ghcr.io/dexorder/agent:v2 --with git-ssh --dry-run"},
		{name: "provision-dry-run-diff", args: "provision ceo --org dexorder --env production --dry-run --diff", code: 2},
		{name: "provision-from-another-role", args: "provision ceo --from ../../manifests/role-namespace/overlays/marketing-production --dry-run", code: 2},
		{name: "provision-no-cluster", args: "provision ceo --org dexorder --env production --kubeconfig testdata/none.yaml", code: 2},
		{name: "deprovision-help", args: "deprovision --help"},
		{name: "deprovision-no-role", args: "deprovision", code: 2},
		{name: "deprovision-no-cluster", args: "deprovision agent-ceo --kubeconfig testdata/none.yaml", code: 2},

		{name: "breaker-help", args: "breaker --help"},
		{name: "breaker-unknown", args: "breaker close", code: 2},
		{name: "breaker-open-no-reason", args: "breaker open", code: 2},
		{name: "breaker-open-empty-reason", args: "breaker open --reason=", code: 2},
		{name: "breaker-open-long-reason", args: "breaker open --reason=" + strings.Repeat("x", 201), code: 2},
		{name: "breaker-release-reason", args: "breaker release --reason=done", code: 2},
		{name: "breaker-no-cluster", args: "breaker --kubeconfig testdata/none.yaml", code: 2},

		{name: "restore-help", args: "restore --help"},
		{name: "restore-two", args: "restore agent-ceo agent-cfo", code: 2},
		{name: "restore-bad-timeout", args: "restore --timeout=0s", code: 2},
		{name: "restore-no-cluster", args: "restore --kubeconfig testdata/none.yaml", code: 2},

		{name: "discard-help", args: "discard --help"},
		{name: "discard-bad-choice", args: "discard agent-ceo --volumes=maybe", code: 2},
		{name: "discard-of-nothing", args: "discard --volumes=delete", code: 2},
		{name: "discard-bad-timeout", args: "discard --timeout=0s", code: 2},
		{name: "discard-no-cluster", args: "discard --kubeconfig testdata/none.yaml", code: 2},

		{name: "help", args: "help"},
		{name: "help-flag", args: "--help"},
		{name: "help-unknown", args: "help why", code: 2},
		{name: "no-verb", args: "", code: 2},
		{name: "unknown-verb", args: "chek -f testdata/good.yaml", code: 2},
	}
	known := map[string]bool{}
	for _, tt := range tests {
		known[tt.name+".txt"] = true
		t.Run(tt.name, func(t *testing.T) {
			r := runWith(tt.stdin, strings.Fields(tt.args)...)
			if r.code != tt.code {
				t.Errorf("exit code %d, want %d", r.code, tt.code)
			}
			got := fmt.Sprintf("$ kubectl agents %s\nexit code %d\n\n=== stdout\n%s\n=== stderr\n%s", tt.args, r.code, r.out, r.err)
			golden(t, tt.name, got)
		})
	}
	strays, err := os.ReadDir("testdata/golden")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strays {
		if !known[f.Name()] {
			t.Errorf("testdata/golden/%s belongs to no test", f.Name())
		}
	}
}

// asOnWindows returns a file as editors there save it.
func asOnWindows(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return "\ufeff" + strings.ReplaceAll(string(text), "\n", "\r\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got (go test ./cmd/kubectl-agents -update accepts it)\n%s", diff)
	}
}

// TestNotUnderstoodOutweighsDenied, in whatever order they stand.
func TestNotUnderstoodOutweighsDenied(t *testing.T) {
	for _, args := range []string{
		"check -f testdata/broken.yaml -f testdata/bad.yaml", "check -f testdata/bad.yaml -f testdata/broken.yaml",
	} {
		if r := runWith("", strings.Fields(args)...); r.code != exitNotUnderstood {
			t.Errorf("%s: exit code %d, want %d", args, r.code, exitNotUnderstood)
		}
	}
}

func TestVersion(t *testing.T) {
	defer func(v string) { version = v }(version)
	version = "v1.2.3"
	want := fmt.Sprintf("kubectl-agents v1.2.3 %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if r := runWith("", "version"); r.code != 0 || r.out != want {
		t.Errorf("%+v, want %q", r, want)
	}
}

// TestExamples: what the project shows people is admitted.
func TestExamples(t *testing.T) {
	r := runWith("", "check", "-f", "../../manifests/examples", "-o", "json")
	if r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.out, r.err)
	}
	var verdicts []struct {
		Kind    string
		Allowed bool
	}
	if err := json.Unmarshal([]byte(r.out), &verdicts); err != nil {
		t.Fatal(err)
	}
	deployments := 0
	for _, v := range verdicts {
		if !v.Allowed {
			t.Errorf("%+v", v)
		}
		if v.Kind == "Deployment" {
			deployments++
		}
	}
	if deployments == 0 {
		t.Error("the examples hold no Deployment")
	}
}

// TestInjectFormsAgree: where the manifest comes from and which form is asked for makes no difference to the object.
func TestInjectFormsAgree(t *testing.T) {
	fromFile := runWith("", "inject", "-f", "testdata/good.yaml")
	if r := runWith(asOnWindows(t, "testdata/good.yaml"), "inject", "-f", "-"); r.code != 0 || r.out != fromFile.out {
		t.Errorf("from stdin: %s", cmp.Diff(fromFile.out, r.out))
	}
	asJSON := runWith("", "inject", "-f", "testdata/good.yaml", "-o", "json")
	var object any
	if err := json.Unmarshal([]byte(asJSON.out), &object); err != nil {
		t.Fatal(err)
	}
	if r := runWith(asJSON.out, "inject", "-f", "-", "-o", "yaml"); r.out != asJSON.out {
		t.Errorf("JSON that needs nothing is not printed as it is: %s", cmp.Diff(asJSON.out, r.out))
	}
	several := runWith("", "inject", "-f", "testdata/good.yaml", "-f", "testdata/dir", "-o", "json")
	var list struct {
		Kind  string
		Items []any
	}
	if err := json.Unmarshal([]byte(several.out), &list); err != nil {
		t.Fatal(err)
	}
	if list.Kind != "List" || len(list.Items) != 4 {
		t.Fatalf("a %s of %d items, want a List of the 4 documents", list.Kind, len(list.Items))
	}
	if diff := cmp.Diff(object, list.Items[0]); diff != "" {
		t.Errorf("alone and in a List: %s", diff)
	}
}

// TestInjectByPolicy: another policy injects other things.
func TestInjectByPolicy(t *testing.T) {
	r := runWith("", "inject", "-f", "testdata/good.yaml", "-n", "lab", "--policy", "testdata/policy.yaml")
	if r.code != 0 || !strings.Contains(r.out, "image: registry.example/lifecycle-sidecar:v1\n") {
		t.Errorf("%+v", r)
	}
}

// TestInjectedIsAdmittedUnchanged: what inject prints is what check admits, and injecting it again changes nothing.
func TestInjectedIsAdmittedUnchanged(t *testing.T) {
	for _, format := range []string{"yaml", "json"} {
		once := runWith("", "inject", "-f", "testdata/good.yaml", "-f", "testdata/dir/nested", "-o", format)
		if once.code != 0 {
			t.Fatalf("%+v", once)
		}
		if r := runWith(once.out, "check", "-f", "-"); r.code != 0 {
			t.Errorf("%s: check: %+v", format, r)
		}
		if r := runWith(once.out, "inject", "-f", "-", "--diff"); r.code != 0 || r.out != "" {
			t.Errorf("%s: inject again: %+v", format, r)
		}
		if r := runWith(once.out, "inject", "-f", "-", "-o", format); r.code != 0 || r.out != once.out {
			t.Errorf("%s: inject again: %s", format, cmp.Diff(once.out, r.out))
		}
	}
}

// brokenWriter is a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatCannotBeWritten(t *testing.T) {
	for _, args := range []string{
		"check -f testdata/good.yaml", "check -f testdata/good.yaml -o json", "check -f testdata/bad.yaml -o github",
		"inject -f testdata/good.yaml",
	} {
		var stderr bytes.Buffer
		code := run(strings.Fields(args), streams{strings.NewReader(""), brokenWriter{}, &stderr})
		if code != exitNotUnderstood || !strings.Contains(stderr.String(), "error: no space left on device\n") {
			t.Errorf("%s: exit code %d, stderr %q", args, code, stderr.String())
		}
	}
}

// BenchmarkCheck is a directory of manifests: a thousand objects an iteration.
func BenchmarkCheck(b *testing.B) {
	text, err := os.ReadFile("testdata/good.yaml")
	if err != nil {
		b.Fatal(err)
	}
	manifests := strings.Repeat(string(text)+"---\n", 1000)
	for b.Loop() {
		if r := runWith(manifests, "check", "-f", "-"); r.code != 0 {
			b.Fatalf("%+v", r)
		}
	}
}
