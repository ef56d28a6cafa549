package manifest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// summarize says of every object where it is, what it is and what is wrong with it.
func summarize(docs []*Document) []string {
	var lines []string
	for _, d := range docs {
		for _, o := range d.Objects {
			line := fmt.Sprintf("%d@%d%s %s/%s %s/%s", d.Index, o.Line(""), o.Pointer, o.GVK.GroupVersion(), o.GVK.Kind,
				o.Namespace, o.Name+o.GenerateName)
			if o.Err != nil {
				line = fmt.Sprintf("%d@%d%s error at %d: %s", d.Index, o.Line(""), o.Pointer, o.Err.Line, o.Err)
			}
			lines = append(lines, line)
		}
	}
	return lines
}

func parse(t *testing.T, text string) []*Document {
	t.Helper()
	sources, errs := Sources([]string{"-"}, strings.NewReader(text))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	docs, err := sources[0].Documents()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func TestDocuments(t *testing.T) {
	const a, b = "apiVersion: v1\nkind: A\nmetadata: {name: a}\n", "apiVersion: v1\nkind: B\nmetadata: {name: b}\n"
	const more = "something follows the document that would be passed over; begin it with a line that says ---"
	tests := []struct {
		name string
		text string
		want []string
	}{
		{"nothing", "", nil},
		{"comments", "# hello\n\n---\n# more\n---\n...\n---\n", nil},
		{"null", "---\nnull\n---\n~\n", nil},
		{"one", a, []string{"1@1 v1/A /a"}},
		{"two", a + "---\n" + b, []string{"1@1 v1/A /a", "2@5 v1/B /b"}},
		{"markers", "# licence\n---\n\n# first\n" + a + "--- # second\n" + b + "...\n# end\n---\n---\t\n" + a,
			[]string{"1@5 v1/A /a", "2@9 v1/B /b", "3@16 v1/A /a"}},
		{"end marker alone", a + "...\n" + b, []string{"1@1 v1/A /a", "2@5 v1/B /b"}},
		{"content on the marker's line", a + "--- {apiVersion: v1, kind: B}\n---\n" + a,
			[]string{"1@1 v1/A /a", "2@4 v1/B /", "3@6 v1/A /a"}},
		{"directive", "%YAML 1.1\n---\n" + a, []string{"1@3 v1/A /a"}},
		{"not a marker", "apiVersion: v1\nkind: A\nmetadata:\n  name: |-\n    ---\n", []string{"1@1 v1/A /---"}},
		{"CRLF", strings.ReplaceAll(a+"---\n"+b, "\n", "\r\n"), []string{"1@1 v1/A /a", "2@5 v1/B /b"}},
		{"no newline at the end", a + "---\nkind: B\napiVersion: v1", []string{"1@1 v1/A /a", "2@5 v1/B /"}},
		{"UTF-8 byte order mark", "\ufeff" + a, []string{"1@1 v1/A /a"}},
		{"UTF-16", utf16Text(a), []string{"1@1 v1/A /a"}},
		{"JSON", `{"apiVersion": "v1", "kind": "A", "metadata": {"name": "a\/"}}`, []string{"1@1 v1/A /a/"}},
		{"JSON values", "\n{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"A\"\n}\n{\"apiVersion\":\"v1\",\"kind\":\"B\"}\n",
			[]string{"1@2 v1/A /", "2@6 v1/B /"}},
		{"JSON among YAML", a + "---\n{\"apiVersion\":\"v1\",\"kind\":\"B\"}\n# end\n", []string{"1@1 v1/A /a", "2@5 v1/B /"}},
		{"flow style", `{"apiVersion": v1, kind: A}`, []string{"1@1 v1/A /"}},
		{"anchors", "apiVersion: v1\nkind: A\nx: &x {name: a, namespace: ns}\nmetadata:\n  <<: *x\n  name: b\n",
			[]string{"1@1 v1/A ns/b"}},
		{"generateName", "apiVersion: v1\nkind: A\nmetadata: {generateName: a-}\n", []string{"1@1 v1/A /a-"}},

		{"syntax", a + "---\n" + "kind: [\n" + "---\n" + b, []string{
			"1@1 v1/A /a",
			"2@5 error at 5: invalid YAML: did not find expected node content",
			"3@7 v1/B /b",
		}},
		{"duplicate keys", a + "---\nkind: B\nspec:\n- a.b/c: 1\n  a.b/c: 2\nkind: C\n", []string{
			"1@1 v1/A /a",
			"2@5 error at 8: spec[0][a.b/c] is given twice, on lines 7 and 8; kind is given twice, on lines 5 and 9",
		}},
		{"duplicate names in JSON", "{\"kind\": \"A\",\n \"spec\": [{\"a\": 1,\n \"a\": 2}]}",
			[]string{"1@1 error at 3: spec[0].a is given twice"}},
		{"broken JSON", "{\"apiVersion\": \"v1\", \"kind\": \"A\"}\n{\"kind\":\n \"A\",,}\n", []string{
			"1@1 v1/A /",
			"2@2 error at 3: invalid JSON: invalid character ',' at start of string (expecting '\"')",
		}},
		{"a second document without a marker", "{kind: A, apiVersion: v1}\n{kind: B, apiVersion: v1}\n", []string{"1@1 error at 0: " + more}},
		{"old Mac line ends", "kind: A\rapiVersion: v1\r---\rkind: B\r", []string{"1@1 error at 0: " + more}},
		{"one document with old Mac line ends", "kind: A\rapiVersion: v1\r", []string{"1@1 v1/A /"}},
		{"YAML 1.1 as kubectl reads it", "apiVersion: v1\nkind: A\nmetadata: {name: yes}\n",
			[]string{"1@1 error at 3: metadata.name: a boolean does not fit: a string is expected"}},
		{"anchor bomb", bomb(), []string{"1@1 error at 0: invalid YAML: document contains excessive aliasing"}},
		{"no object", "- a\n---\nfoo\n---\n1\n", []string{
			"1@1 error at 0: a list is not an object",
			"2@3 error at 0: a string is not an object",
			"3@5 error at 0: a number is not an object",
		}},
		{"no kind", "apiVersion: v1\n", []string{"1@1 error at 0: there is no kind, as every Kubernetes object has"}},
		{"no apiVersion", "kind: A\n", []string{"1@1 error at 0: there is no apiVersion, as every Kubernetes object has"}},
		{"kind is a number", "apiVersion: v1\nkind: 7\n",
			[]string{"1@1 error at 2: kind: a number does not fit: a string is expected"}},
		{"metadata is a list", "apiVersion: v1\nkind: A\nmetadata:\n- name\n",
			[]string{"1@1 error at 3: metadata: a list does not fit: an object is expected"}},
		{"kustomization", "kind: Kustomization\nresources: []\n", []string{"1@1 /Kustomization /"}},

		{"List", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: A\n- apiVersion: v1\n  kind: B\n- 5\n", []string{
			"1@4/items/0 v1/A /",
			"1@6/items/1 v1/B /",
			"1@8/items/2 error at 0: a number is not an object",
		}},
		{"typed list", "apiVersion: apps/v1\nkind: DeploymentList\nitems:\n- metadata: {name: a}\n- kind: Other\n", []string{
			"1@4/items/0 apps/v1/Deployment /a",
			"1@5/items/1 apps/v1/Other /",
		}},
		{"list in a list", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: PodList\n  items:\n  - metadata: {name: a}\n",
			[]string{"1@7/items/0/items/0 v1/Pod /a"}},
		{"too many lists", `{"apiVersion":"v1","kind":"List","items":[` + strings.Repeat(`{"kind":"List","items":[`, 9) +
			strings.Repeat("]}", 10), []string{"1@1/items/0/items/0/items/0/items/0 error at 0: Lists stand within Lists more than 4 deep"}},
		{"kind like a list", "apiVersion: v1\nkind: AccessList\nspec: {items: []}\n", []string{"1@1 v1/AccessList /"}},
		{"JSON List", "{\"apiVersion\":\"v1\",\"kind\":\"List\",\"items\":[\n{\"apiVersion\":\"v1\",\"kind\":\"A\"},\n" +
			"{\"apiVersion\":\"v1\",\"kind\":\"B\"}]}", []string{"1@2/items/0 v1/A /", "1@3/items/1 v1/B /"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, summarize(parse(t, tt.text))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func utf16Text(s string) string {
	text := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(s)) {
		text = append(text, byte(u), byte(u>>8))
	}
	return string(text)
}

// bomb is a small document that says that it is a large one.
func bomb() string {
	text := "a0: &a0 [x, x]\n"
	for i := 1; i < 9; i++ {
		text += fmt.Sprintf("a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), ", "))
	}
	return text
}

func TestVerbatim(t *testing.T) {
	docs := parse(t, "# licence\n---\n# a\nkind: A\n---\n{kind: B} # b\n--- {kind: C}\n---\n{\"kind\":\"D\"}\n")
	var got []string
	for _, d := range docs {
		got = append(got, string(d.Verbatim()))
	}
	want := []string{"# licence\n# a\nkind: A\n", "{kind: B} # b\n", "", `{"kind":"D"}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestLine(t *testing.T) {
	const yaml = `# comment
---
apiVersion: v1
kind: List
items:
- kind: A
  apiVersion: v1
  metadata:
    labels:
      app.kubernetes.io/name: a
      app: b
  common: &common
    image: i
  spec:
    containers:
    - name: one
    -
      <<: *common
      name: two
      env: []
    - {name: three,
       image: j}
`
	object := parse(t, yaml)[0].Objects[0]
	lines := strings.Split(yaml, "\n")
	for field, want := range map[string]string{
		"":                     "- kind: A",
		"kind":                 "- kind: A",
		"metadata.labels":      "labels:",
		"metadata.labels.app":  "app: b",
		"metadata.labels[app]": "app: b",
		"metadata.labels[app.kubernetes.io/name]":    "app.kubernetes.io/name: a",
		`metadata.labels["app.kubernetes.io/name"]`:  "app.kubernetes.io/name: a",
		"metadata.labels.app.kubernetes.io/name":     "app.kubernetes.io/name: a",
		"metadata.labels[lifecycle.dexorder.io/foo]": "labels:",
		"metadata.annotations":                       "metadata:",
		"spec.containers[0]":                         "- name: one",
		"spec.containers[0].image":                   "- name: one",
		"spec.containers[1].name":                    "name: two",
		"spec.containers[1].image":                   "image: i",
		"spec.containers[1].env[7].value":            "env: []",
		"spec.containers[2].image":                   "image: j}",
		"spec.containers[9].image":                   "containers:",
		"spec.containers[*].image":                   "containers:",
		"spec.containers[1":                          "containers:",
		"spec.strategy.type":                         "spec:",
		"nothing.of.that":                            "- kind: A",
	} {
		if got := strings.TrimSpace(lines[object.Line(field)-1]); got != want {
			t.Errorf("Line(%q) is %q, want %q", field, got, want)
		}
	}
}

func TestLineInJSON(t *testing.T) {
	docs := parse(t, "{\"kind\": \"A\"}\n{\n\t\"kind\": \"B\",\n\t\"spec\": {\"containers\": [\n\t\t{\n\t\t\t\"image\": \"a\\/b\"\n\t\t}\n\t]}\n}")
	for field, want := range map[string]int{
		"": 2, "kind": 3, "spec.containers": 4, "spec.containers[0]": 5, "spec.containers[0].image": 6, "spec.x": 4,
	} {
		if got := docs[1].Objects[0].Line(field); got != want {
			t.Errorf("Line(%q) = %d, want %d", field, got, want)
		}
	}
}

func TestSources(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"b.yaml", "a/z.yml", "a/y.json", "a/notes.txt", "Makefile"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("kind: A"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	empty := t.TempDir()
	sources, errs := Sources([]string{dir, "-", filepath.Join(dir, "Makefile"), "-", empty, filepath.Join(dir, "none")}, nil)
	var names, messages []string
	for _, s := range sources {
		names = append(names, strings.TrimPrefix(s.Name(), dir))
	}
	for _, err := range errs {
		messages = append(messages, strings.ReplaceAll(strings.ReplaceAll(err.Error(), dir, "DIR"), empty, "EMPTY"))
	}
	if diff := cmp.Diff([]string{"/a/y.json", "/a/z.yml", "/b.yaml", "stdin", "/Makefile"}, names); diff != "" {
		t.Errorf("sources: -want +got\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"standard input can be read once, but - is given twice",
		"EMPTY: no file in the directory ends in .json, .yaml or .yml",
		"stat DIR/none: no such file or directory",
	}, messages); diff != "" {
		t.Errorf("errors: -want +got\n%s", diff)
	}
}

// TestKustomizationWithoutKind: kustomize lets it be left out.
func TestKustomizationWithoutKind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kustomization.yaml")
	if err := os.WriteFile(path, []byte("resources: [a.yaml]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sources, _ := Sources([]string{path}, nil)
	docs, err := sources[0].Documents()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1@1 /Kustomization /"}, summarize(docs)); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// endless never comes to its end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '#'
	}
	return len(p), nil
}

func TestStreamIsBounded(t *testing.T) {
	sources, _ := Sources([]string{"-"}, endless{})
	_, err := sources[0].Documents()
	const want = "stdin: longer than 64 MiB, which no manifest is"
	if err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

// FuzzDocuments: no input makes reading or looking for lines panic, and what is read is accounted for.
func FuzzDocuments(f *testing.F) {
	f.Add("a: 1\n---\n{\"a\": [1]}\n...\n%YAML 1.1\n---\na: &a {b: *a}\n")
	f.Add("kind: List\napiVersion: v1\nitems:\n- <<: [{a: 1}]\n")
	f.Add("{\"kind\":\"A\"}{\"kind\"")
	f.Fuzz(func(t *testing.T, text string) {
		sources, _ := Sources([]string{"-"}, strings.NewReader(text))
		docs, err := sources[0].Documents()
		if err != nil {
			return
		}
		for _, d := range docs {
			d.Verbatim()
			for _, o := range d.Objects {
				if line := o.Line("spec.template.a[0].b"); line < 1 {
					t.Errorf("line %d", line)
				}
				if o.Err == nil && o.GVK.Kind == "" {
					t.Error("an object without a kind is taken for understood")
				}
			}
		}
	})
}
