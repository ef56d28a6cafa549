package offline

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

func newJudge(t testing.TB) *Judge {
	t.Helper()
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.New(file)
	if err != nil {
		t.Fatal(err)
	}
	return &Judge{Policy: p, Namespace: "dexorder-agents"}
}

func documents(t testing.TB, text string) []*manifest.Document {
	t.Helper()
	sources, _ := manifest.Sources([]string{"-"}, strings.NewReader(text))
	docs, err := sources[0].Documents()
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

func check(t testing.TB, text string) []Verdict {
	t.Helper()
	judge := newJudge(t)
	var verdicts []Verdict
	for _, d := range documents(t, text) {
		for _, o := range d.Objects {
			verdicts = append(verdicts, judge.Check(o))
		}
	}
	return verdicts
}

const deployment = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: agent-a
spec:
  template:
    spec:
      containers:
      - name: agent
        image: ghcr.io/dexorder/agent:v1
        resources:
          requests: {cpu: 100m, memory: 256Mi}
          limits: {cpu: "1", memory: 1Gi}
`

// TestKindsAreUnderstood: every kind that is judged can be decoded, and fields that its type does not have are seen.
func TestKindsAreUnderstood(t *testing.T) {
	for _, k := range workloads {
		if !workload.Understands(k.GroupVersionKind) {
			t.Errorf("%s cannot be decoded", k)
		}
		apiVersion, kind := k.ToAPIVersionAndKind()
		v := check(t, "apiVersion: "+apiVersion+"\nkind: "+kind+"\nmetadata: {name: a}\nspec: {nonsense: 1}\n")[0]
		if v.Outcome != Admitted && v.Outcome != Denied {
			t.Errorf("%s is %s", kind, v.Outcome)
		}
		want := Finding{Line: 4, Message: `unknown field "spec.nonsense"`}
		if len(v.Warnings) == 0 || v.Warnings[0] != want {
			t.Errorf("%s: warnings %+v, want %+v first", kind, v.Warnings, want)
		}
	}
}

func TestOutcomes(t *testing.T) {
	const rest = "\nmetadata: {name: a}\n"
	for text, want := range map[string]Outcome{
		deployment: Admitted,
		strings.Replace(deployment, "ghcr.io/dexorder", "docker.io", 1):           Denied,
		strings.Replace(deployment, "metadata:", "metadata:\n  namespace: x", 1):  Admitted,
		strings.Replace(deployment, "apps/v1", "apps/v1beta2", 1):                 NotUnderstood,
		strings.Replace(deployment, "apps/v1", "extensions/v1beta1", 1):           NotUnderstood,
		strings.Replace(deployment, "apps/v1", "v1", 1):                           NotUnderstood,
		strings.Replace(deployment, "apps/v1", "deployments.example/v1", 1):       NotJudged,
		strings.Replace(deployment, "name: agent-a", "namespace: x", 1):           NotUnderstood,
		strings.Replace(deployment, "name: agent-a", "generateName: a-", 1):       Denied,
		strings.Replace(deployment, "image: ghcr", "image: [ghcr]\n      # ", 1):  NotUnderstood,
		strings.Replace(deployment, "cpu: 100m", "cpu: lots", 1):                  NotUnderstood,
		strings.Replace(deployment, "template:", "replicas: 3000000000\n  x:", 1): NotUnderstood,
		"apiVersion: batch/v1beta1\nkind: CronJob" + rest:                         NotUnderstood,
		"apiVersion: v1\nkind: Pod" + rest:                                        Denied,
		"apiVersion: apps/v1\nkind: ReplicaSet" + rest:                            Denied,
		"apiVersion: apps/v1\nkind: DaemonSet" + rest:                             Denied,
		"apiVersion: v1\nkind: Service" + rest:                                    NotJudged,
		"apiVersion: autoscaling/v1\nkind: Scale" + rest:                          NotJudged,
		"apiVersion: batch.volcano.sh/v1alpha1\nkind: Job" + rest:                 NotJudged,
		"kind: Kustomization\nresources: []\n":                                    NotJudged,
		"name: values\n":                                                          NotUnderstood,
		"a: [\n":                                                                  NotUnderstood,
	} {
		v := check(t, text)[0]
		if v.Outcome != want {
			t.Errorf("%s: %s %+v, want %s", text, v.Outcome, v.Reasons, want)
		}
		if allowed := want == Admitted || want == NotJudged; v.Allowed() != allowed || allowed != (len(v.Reasons) == 0) {
			t.Errorf("%s: allowed is %v, reasons %+v", text, v.Allowed(), v.Reasons)
		}
	}
}

// TestFindingsKnowTheirLines in a list, where the API version is not repeated.
func TestFindingsKnowTheirLines(t *testing.T) {
	const list = `apiVersion: apps/v1
kind: DeploymentList
items:
- metadata:
    name: agent-a
  spec:
    replicas: 7
    template:
      spec:
        containers:
        - name: agent
          image: docker.io/library/nginx
          resources:
            limits: {cpu: "1", memory: 1Gi}
- metadata: {name: broken}
  spec:
    replicas: many
`
	verdicts := check(t, list)
	lines := map[string]int{}
	for _, v := range verdicts {
		for _, f := range v.Reasons {
			lines[f.Rule+" "+f.Field] = f.Line
		}
	}
	want := map[string]int{
		"image-allowlist spec.template.spec.containers[0].image": 12,
		"replicas spec.replicas":                                 7,
		"not-understood spec.replicas":                           17,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestUncoveredNamespace(t *testing.T) {
	judge := newJudge(t)
	judge.Namespace = "default"
	o := documents(t, strings.Replace(deployment, "ghcr.io/dexorder/agent:v1", "nginx", 1))[0].Objects[0]
	v := judge.Check(o)
	if v.Outcome != Admitted || v.Namespace != "default" || len(v.Warnings) != 1 ||
		!strings.HasPrefix(v.Warnings[0].Message, `no profile of the policy covers namespace "default", so the webhook leaves it alone; covered are "dexorder-agents"`) {
		t.Errorf("%s in %s, warnings %+v", v.Outcome, v.Namespace, v.Warnings)
	}
}

func injected(t testing.TB, text string) Injection {
	t.Helper()
	in, failures := newJudge(t).Inject(documents(t, text)[0])
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	return in
}

// TestInjectKeepsWhatItDoesNotKnow: values of newer APIs, numbers of any size and text of any sort survive both forms.
func TestInjectKeepsWhatItDoesNotKnow(t *testing.T) {
	odd := map[string]any{
		"integer": "9007199254740993", "yes": "no", "multi": "a\nb\n\n", "trailing": "x ", "empty": "", "octal": "0777",
		"time": "12:30:45", "date": "2001-01-01", "null": "null", "tilde": "~", "separator": "a\u2028b\u0085c", "nul": "\u0007",
		"<&>": "<&>", "emoji": "\U0001f600", "long": strings.Repeat("word ", 60), "list": []any{"- a", map[string]any{"k": nil}},
		"bool": true, "float": 1.5, "int": 9007199254740993,
	}
	encoded, err := json.Marshal(odd)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := yaml.YAMLToJSON([]byte(deployment))
	if err != nil {
		t.Fatal(err)
	}
	text := `{"unknown": ` + strings.ReplaceAll(string(encoded), "<", `\u003c`) + "," + strings.TrimPrefix(string(whole), "{")
	in := injected(t, text)
	if !in.Changed {
		t.Fatal("nothing was injected")
	}
	asYAML, err := in.YAML()
	if err != nil {
		t.Fatal(err)
	}
	fromYAML, err := yaml.YAMLToJSON(asYAML)
	if err != nil {
		t.Fatalf("%v in\n%s", err, asYAML)
	}
	asJSON, err := ToJSON([]Injection{in})
	if err != nil {
		t.Fatal(err)
	}
	want := sortedJSON(t, in.JSON)
	if diff := cmp.Diff(want, sortedJSON(t, fromYAML)); diff != "" {
		t.Errorf("YAML: -want +got\n%s", diff)
	}
	if diff := cmp.Diff(want, sortedJSON(t, asJSON)); diff != "" {
		t.Errorf("JSON: -want +got\n%s", diff)
	}
	for _, kept := range []string{`"int": 9007199254740993`, `"separator": "a\u2028b`} {
		if !strings.Contains(want, kept) {
			t.Errorf("%s is not among\n%s", kept, want)
		}
	}
}

func sortedJSON(t *testing.T, data []byte) string {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var tree any
	if err := decoder.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.MarshalIndent(tree, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(sorted)
}

func TestInjectLeavesTheRestAsItIs(t *testing.T) {
	for _, text := range []string{
		"apiVersion: v1\nkind: Service # of ours\nmetadata: {name: a}\n",
		"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\n",
		strings.TrimPrefix(strings.Replace(deployment, "metadata:", "metadata:\n  namespace: default", 1), "\n"),
	} {
		in := injected(t, text)
		got, err := in.YAML()
		if err != nil {
			t.Fatal(err)
		}
		diff, err := in.Diff()
		if in.Changed || string(got) != text || diff != "" || err != nil {
			t.Errorf("changed %v, %s\ndiff %s, error %v", in.Changed, cmp.Diff(text, string(got)), diff, err)
		}
	}
}

func TestInjectIntoLists(t *testing.T) {
	item := "- " + strings.ReplaceAll(strings.TrimSpace(deployment), "\n", "\n  ")
	in := injected(t, "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: s}}\n"+
		item+"\n"+strings.ReplaceAll(item, "agent-a", "agent-b"))
	var list struct {
		Items []struct {
			Metadata struct {
				Labels map[string]string
			}
		}
	}
	if err := json.Unmarshal(in.JSON, &list); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list.Items {
		got = append(got, i.Metadata.Labels["lifecycle.dexorder.io/deployment"])
	}
	if diff := cmp.Diff([]string{"", "agent-a", "agent-b"}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// TestGitHubEscapes: nothing in a manifest or a file's name can end a workflow command or begin another.
func TestGitHubEscapes(t *testing.T) {
	v := Verdict{
		Object:  &manifest.Object{Name: "a\n::error::b", Document: &manifest.Document{File: "a,b:c%\n.yaml", Index: 1}},
		Outcome: Denied,
		Reasons: []Finding{{Rule: "rule", Field: "spec", Line: 3, Message: "100%\r\nsure"}},
	}
	var b bytes.Buffer
	if err := WriteGitHub(&b, []Verdict{v}); err != nil {
		t.Fatal(err)
	}
	const want = "::error file=a%2Cb%3Ac%25%0A.yaml,line=3,title=rule::document 1 a\\n::error::b: spec: 100%25\\r\\nsure\n"
	if got := b.String(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

// TestJSONIsPlain: sorted, and without escapes that only browsers need.
func TestJSONIsPlain(t *testing.T) {
	got, err := ToJSON([]Injection{{JSON: []byte(`{"b": "\u003c", "a": 1.0}`)}})
	const want = "{\n  \"a\": 1.0,\n  \"b\": \"<\"\n}\n"
	if err != nil || string(got) != want {
		t.Errorf("%v %s", err, cmp.Diff(want, string(got)))
	}
	var b bytes.Buffer
	verdict := Verdict{Object: &manifest.Object{}, Warnings: []Finding{{Message: "a < b"}}}
	if err := WriteJSON(&b, []Verdict{verdict}); err != nil || !strings.Contains(b.String(), `"a < b"`) {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestNothingIsAnEmptyList(t *testing.T) {
	var b bytes.Buffer
	if err := WriteJSON(&b, nil); err != nil || b.String() != "[]\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}
