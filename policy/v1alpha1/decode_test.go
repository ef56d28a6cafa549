package v1alpha1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// minimal holds what a file must say and nothing else.
const minimal = `
apiVersion: lifecycle.dexorder.io/v1alpha1
kind: LifecyclePolicy
sidecar:
  image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0
profiles:
  - name: agents
    namespaces:
      names: [agents]
    rules:
      image-allowlist:
        images: [ghcr.io/dexorder/*]
`

// errorLine begins a line of a file under testdata that holds a line of the error to expect.
const errorLine = "#! "

func TestRefused(t *testing.T) {
	files, err := filepath.Glob("testdata/refused/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				if message, found := strings.CutPrefix(line, errorLine); found {
					want = append(want, strings.TrimSuffix(message, "\n"))
				}
			}
			if len(want) == 0 {
				t.Fatal("the file expects no error")
			}
			policy, err := Decode(data)
			if err == nil {
				t.Fatalf("the file is read as %v", policy)
			}
			if got := strings.Join(want, "\n"); err.Error() != got {
				t.Errorf("got\n%s\nwant\n%s", err, got)
			}
		})
	}
}

// What is next to a bound is within it.
func TestAccepted(t *testing.T) {
	for name, more := range map[string]string{
		"requests as high as limits": `
      resource-limits: {max: {cpu: 100m, memory: 32Mi}}
sidecar: {image: ghcr.io/dexorder/sidecar:v1, resources: {requests: {cpu: 100m, memory: 32Mi}}}`,
		"a request for which there is no limit": `
      resource-limits: {limits: [], requests: [ephemeral-storage]}
sidecar: {image: ghcr.io/dexorder/sidecar:v1, resources: {requests: {ephemeral-storage: 1Mi}}}`,
		"a sidecar by digest, in a registry with a port": `
sidecar: {image: "localhost:5000/sidecar@sha256:` + strings.Repeat("a", 64) + `"}`,
		"patterns that part agents": `
      volumes: {claims: ["{deployment}-data", "{deployment}-cache", "{deployment}-data.v1", shared, "*"]}
      references: {secrets: ["{deployment}-a"], pullSecrets: ["{deployment}-a"], configMaps: ["a-{deployment}", "b-{deployment}"]}`,
		"the newest Pod Security Standard": `
      pod-security: {level: privileged, version: latest}`,
		"an account beside the profile's": `
      service-account: {names: [default, "{deployment}", runner]}
    serviceAccount: {name: runner, mountToken: true}`,
		"namespaces next to one another": `
  - name: others
    namespaces: {names: [agent, agents-x, kube, dexorder], prefixes: [agents-y-, ` + strings.Repeat("a", 61) + `-]}
    rules: {image-allowlist: {images: [ghcr.io/*]}}`,
		"a warning just before the end": `
tiers: {free: {idleTimeout: 1m}, enterprise: {idleTimeout: 1s}}
idle: {warning: 59s, checkInterval: 1s}`,
	} {
		file := minimal
		if strings.Contains(more, "sidecar:") {
			file = strings.Replace(file, "sidecar:\n  image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0\n", "", 1)
		}
		if _, err := Decode([]byte(file + more)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeAcceptsJSON(t *testing.T) {
	file, err := Decode([]byte(`{
	"apiVersion": "lifecycle.dexorder.io/v1alpha1", "kind": "LifecyclePolicy",
	"sidecar": {"image": "ghcr.io/dexorder/lifecycle-sidecar:v0.1.0"},
	"profiles": [{"name": "agents", "namespaces": {"names": ["agents"]},
		"rules": {"image-allowlist": {"images": ["ghcr.io/dexorder/*"]}}}]
}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := file.Sidecar.Image; got != "ghcr.io/dexorder/lifecycle-sidecar:v0.1.0" {
		t.Errorf("sidecar image is %q", got)
	}
}

func TestDecodeAcceptsOneDocumentAmongEmptyOnes(t *testing.T) {
	if _, err := Decode([]byte("---\n" + minimal + "\n---\n# nothing\n---\n")); err != nil {
		t.Error(err)
	}
}

func TestDecodeReadsOnAsAWord(t *testing.T) {
	for _, word := range []string{"on", "off", "auto"} {
		file, err := Decode([]byte(minimal + "restartRules: " + word + "\n"))
		if err != nil {
			t.Errorf("%s: %v", word, err)
		} else if string(file.RestartRules) != word {
			t.Errorf("%s is read as %q", word, file.RestartRules)
		}
	}
}

func TestDecodeFollowsAliases(t *testing.T) {
	file, err := Decode([]byte(minimal + `
  - name: others
    namespaces: {names: &names [others]}
    rules: {image-allowlist: {images: [ghcr.io/dexorder/*]}, service-account: {names: *names}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := file.Profiles[1].Rules.ServiceAccounts.Names; len(got) != 1 || got[0] != "others" {
		t.Errorf("the alias is read as %q", got)
	}
}

func TestDecodeBoundsInput(t *testing.T) {
	_, err := Decode(make([]byte, MaxSize+1))
	want := "the policy file has 1048577 bytes; at most 1048576 are read"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestDecodeBoundsErrors(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal)
	for i := range 100 {
		fmt.Fprintf(&b, "  - name: %q\n", fmt.Sprint(i, strings.Repeat("é", 2000)))
	}
	_, err := Decode([]byte(b.String()))
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	// Each profile lacks a good name, namespaces and images.
	if want := fmt.Sprintf("and %d more", 3*100-maxErrors); len(lines) != maxErrors+1 || lines[maxErrors] != want {
		t.Errorf("%d lines, the last is %q, want %q", len(lines), lines[len(lines)-1], want)
	}
	for _, line := range lines {
		if len(line) > maxLine+len("…") {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
}

// A misfit is found one at a time; that must end.
func TestDecodeBoundsMisfits(t *testing.T) {
	var b strings.Builder
	b.WriteString(minimal)
	for i := range 10_000 {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	_, err := Decode([]byte(b.String()))
	if err == nil {
		t.Fatal("no error")
	}
	if n := strings.Count(err.Error(), "\n") + 1; n != maxErrors+1 {
		t.Errorf("%d lines, want %d", n, maxErrors+1)
	}
}

func TestErrorsCanBeFound(t *testing.T) {
	_, err := Decode([]byte(minimal + "idle: {grace: -1s}\nrestartRules: never\n"))
	var first *field.Error
	if !errors.As(err, &first) || first.Field != "idle.grace" {
		t.Errorf("errors.As finds %v in %v", first, err)
	}
}

func TestHash(t *testing.T) {
	a, b := Hash([]byte(minimal)), Hash([]byte(minimal+"restartRules: auto"))
	if a == b {
		t.Errorf("two files have the hash %s", a)
	}
	if got := Hash([]byte("abc")); got != "ba7816bf8f01" {
		t.Errorf("Hash(abc) = %s, want the beginning of its SHA-256", got)
	}
}
