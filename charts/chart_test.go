package charts

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/manifests"
)

const chart = "agent-lifecycle"

// own are the annotations and labels that the chart adds to what the manifests say: none. Helm adds its own on the way to the cluster.
var own []string

// installation is one way to install, in both languages.
type installation struct {
	name string

	// overlay is a directory of manifests/overlays, and components those of a user's kustomization, in the order of the documentation.
	overlay    string
	components []string
	// more is what else that kustomization says, and files are beside it.
	more  string
	files map[string]string

	// values are files of the chart, and set are values of the user's.
	values []string
	set    string
}

var (
	prod    = installation{overlay: "prod"}
	staging = installation{overlay: "staging", values: []string{"values-staging.yaml"}}
	dev     = installation{overlay: "dev", values: []string{"values-dev.yaml"}}
)

// with adds components, and the values that say the same.
func (i installation) with(name, set string, components ...string) installation {
	i.name, i.set, i.components = i.overlay+" with "+name, set, components
	return i
}

// also adds what a user's kustomization changes, and the files that it speaks of.
func (i installation) also(more string, files map[string]string) installation {
	i.more, i.files = more, files
	return i
}

const (
	anotherPolicy = "# A policy of one's own, with {{ braces }}, <brackets>, and\n#\ttabs.\napiVersion: x\n"
	anotherAgent  = "# An agent of one's own: {{ braces }} & <brackets>.\nkind: Deployment\n"
)

var installations = []installation{
	{name: "prod", overlay: "prod"},
	{name: "staging", overlay: "staging", values: staging.values},
	{name: "dev", overlay: "dev", values: dev.values},
	dev.with("cronjob", "reaper: {mode: cronjob}", "reaper-cronjob"),
	staging.with("reaper-deployment", "reaper: {mode: deployment}", "reaper-deployment"),
	prod.with("cert-manager", "certManager: {enabled: true}", "cert-manager"),
	dev.with("nats", "nats: {url: nats://nats.nats.svc:4222}", "nats"),
	prod.with("nats-credentials", "nats: {url: nats://nats.nats.svc:4222, credentials: true}", "nats", "nats-credentials"),
	dev.with("retain-secrets", "reaper: {retainSecrets: true}", "retain-secrets"),
	prod.with("retain-secrets", "reaper: {retainSecrets: true}", "retain-secrets"),
	staging.with("isolation", "isolation: {enabled: true}", "isolation"),
	prod.with("system-isolation", "systemIsolation: {enabled: true}", "system-isolation"),
	staging.with("named callers", `
gateway: {allow: ['system:serviceaccount:web:frontend']}
systemIsolation:
  enabled: true
  webhookCallers:
  - ipBlock: {cidr: 172.18.0.2/32}
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
    podSelector: {matchLabels: {k8s-app: konnectivity-agent}}
`, "system-isolation", "webhook-callers", "../testdata/named-callers").also(`
patches:
- target: {kind: Deployment, name: agent-gateway}
  patch: |-
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: "--allow=system:serviceaccount:web:frontend"}
`, nil),
	dev.with("other peers of the servers", `
systemIsolation:
  enabled: true
  metricsFrom: [{podSelector: {matchLabels: {app: scraper}}}]
  gatewayCallers: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.2.0/24]}}]
  apiServer: [10.0.0.1/32, 'fd00::1/128']
  extraEgress: [{ports: [{port: 4223, protocol: TCP}]}]
`, "system-isolation").also(`
patches:
- target: {kind: NetworkPolicy, name: lifecycle-webhook}
  patch: |-
    - {op: replace, path: /spec/ingress/1/from, value: [{podSelector: {matchLabels: {app: scraper}}}]}
- target: {kind: NetworkPolicy, name: agent-gateway}
  patch: |-
    - op: add
      path: /spec/ingress/-
      value:
        from: [{ipBlock: {cidr: 10.1.0.0/16, except: [10.1.2.0/24]}}]
        ports: [{port: 8000, protocol: TCP}]
- target: {kind: NetworkPolicy, name: agent-gateway|lifecycle-reaper, namespace: dexorder-system}
  patch: |-
    - {op: replace, path: /spec/ingress/0/from, value: [{podSelector: {matchLabels: {app: scraper}}}]}
    - {op: add, path: /spec/egress/0/to, value: [{ipBlock: {cidr: 10.0.0.1/32}}, {ipBlock: {cidr: 'fd00::1/128'}}]}
    - {op: add, path: /spec/egress/-, value: {ports: [{port: 4223, protocol: TCP}]}}
`, nil),
	prod.with("controller-cleanup", "{isolation: {enabled: true}, controllerCleanup: true}", "isolation", "controller-cleanup"),
	dev.with("controller-cleanup alone", "controllerCleanup: true", "controller-cleanup"),
	staging.with("alerts", "alerts: {enabled: true}", "alerts"),
	prod.with("everything", `
certManager: {enabled: true}
nats: {url: nats://nats.nats.svc:4222, credentials: true}
reaper: {retainSecrets: true}
isolation: {enabled: true}
controllerCleanup: true
systemIsolation: {enabled: true}
alerts: {enabled: true}
`, "cert-manager", "nats", "nats-credentials", "retain-secrets", "isolation", "controller-cleanup", "system-isolation", "alerts"),
	staging.with("everything by a CronJob", `
certManager: {enabled: true}
nats: {url: nats://nats.nats.svc:4222, credentials: true}
reaper: {mode: cronjob, retainSecrets: true}
isolation: {enabled: true}
alerts: {enabled: true}
`, "reaper-cronjob", "cert-manager", "nats", "nats-credentials", "retain-secrets", "isolation", "alerts"),
	prod.with("another registry", "image: {registry: registry.example.com:5000/agents, tag: v9}").also(`
images:
- {name: ghcr.io/dexorder/lifecycle-webhook, newName: registry.example.com:5000/agents/lifecycle-webhook, newTag: v9}
- {name: ghcr.io/dexorder/agent-gateway, newName: registry.example.com:5000/agents/agent-gateway, newTag: v9}
`, nil),
	prod.with("other sizes", "{server: {replicas: 5, resources: {requests: {cpu: 1}}}, gateway: {replicas: 3}}").also(`
replicas:
- {name: lifecycle-webhook, count: 5}
- {name: agent-gateway, count: 3}
patches:
- target: {kind: Deployment, name: lifecycle-webhook}
  patch: |-
    - {op: replace, path: /spec/template/spec/containers/0/resources/requests/cpu, value: 1}
`, nil),
	dev.with("callers", "gateway: {allow: ['system:serviceaccount:apps:backend', 'system:serviceaccount:ops:console']}").also(`
patches:
- target: {kind: Deployment, name: agent-gateway}
  patch: |-
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: "--allow=system:serviceaccount:apps:backend"}
    - {op: add, path: /spec/template/spec/containers/0/args/-, value: "--allow=system:serviceaccount:ops:console"}
`, nil),
	dev.with("other files", "{policy: "+quote(anotherPolicy)+", gateway: {agentTemplate: "+quote(anotherAgent)+"}}").also(`
configMapGenerator:
- name: lifecycle-policy
  namespace: dexorder-system
  behavior: replace
  files: [policy.yaml]
  options: {disableNameSuffixHash: true}
- name: agent-gateway
  namespace: dexorder-system
  behavior: replace
  files: [agent.yaml]
`, map[string]string{"policy.yaml": anotherPolicy, "agent.yaml": anotherAgent}),
	dev.with("another NATS", "nats: {url: tls://events.example.com:4222}", "nats").also(`
patches:
- target: {kind: ConfigMap, name: lifecycle-nats}
  patch: |-
    - {op: replace, path: /data/url, value: "tls://events.example.com:4222"}
`, nil),
	dev.with("another API server", "isolation: {enabled: true, apiServer: [10.0.0.1/32, 'fd00::1/128']}", "isolation").also(`
patches:
- target: {kind: NetworkPolicy, name: api-server}
  patch: |-
    - op: replace
      path: /spec/egress/0/to
      value:
      - ipBlock: {cidr: 10.0.0.1/32}
      - ipBlock: {cidr: fd00::1/128}
`, nil),
	prod.with("a namespace left out", "agents: {leftOut: [agent-lab]}").also(`
patches:
- target: {kind: (Mutating|Validating)WebhookConfiguration, name: agent-lifecycle}
  patch: |-
    - {op: replace, path: /webhooks/0/matchConditions/1/expression, value: '!(request.namespace in ["agent-lab"])'}
- target: {kind: MutatingWebhookConfiguration, name: agent-lifecycle}
  patch: |-
    - {op: replace, path: /webhooks/1/matchConditions/1/expression, value: '!(request.namespace in ["agent-lab"])'}
- target: {kind: ValidatingAdmissionPolicy, name: agent-(self-delete|namespace-reaping)}
  patch: |-
    - {op: replace, path: /spec/matchConditions/1/expression, value: '!(request.namespace in ["agent-lab"])'}
- target: {kind: ValidatingAdmissionPolicy, name: agent-reaper-(writes|deletes)}
  patch: |-
    - {op: replace, path: /spec/variables/0/expression, value: '["agent-lab"]'}
`, nil),
	dev.with("agents that are being adopted", "agents: {enforcePodSecurity: false}").also(`
patches:
- target: {kind: Namespace, name: dexorder-agents}
  patch: |-
    - {op: remove, path: /metadata/labels/pod-security.kubernetes.io~1enforce}
    - {op: remove, path: /metadata/labels/pod-security.kubernetes.io~1enforce-version}
`, nil),
}

func quote(text string) string {
	quoted, err := yaml.Marshal([]string{text})
	if err != nil {
		panic(err)
	}
	content, err := yaml.YAMLToJSON(quoted)
	if err != nil {
		panic(err)
	}
	return strings.Trim(string(content), "[]\n")
}

// The chart renders the same objects as the manifests, whatever the values.
func TestChartIsTheManifests(t *testing.T) {
	for _, in := range installations {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			want, got := byName(t, in.kustomize(t)), byName(t, in.helm(t))
			for name, object := range got {
				metadata := object["metadata"].(map[string]any)
				for _, field := range []string{"annotations", "labels"} {
					values, _ := metadata[field].(map[string]any)
					for _, key := range own {
						delete(values, key)
					}
				}
				if _, ok := want[name]; !ok {
					t.Errorf("%s is the chart's alone", name)
				}
			}
			for name, object := range want {
				if _, ok := got[name]; !ok {
					t.Errorf("%s is not in the chart", name)
				} else if diff := cmp.Diff(object, got[name]); diff != "" {
					t.Errorf("%s (-manifests +chart):\n%s", name, diff)
				}
			}
		})
	}
}

// Every component is one that values can choose.
func TestChartKnowsEveryComponent(t *testing.T) {
	directories, err := filepath.Glob("../manifests/components/*/kustomization.yaml")
	if err != nil || len(directories) == 0 {
		t.Fatal("found no components", err)
	}
	known := []string{"gateway", "reaper-account"} // part of every overlay, and of other components
	for _, in := range installations {
		known = append(known, in.components...)
	}
	for _, file := range directories {
		if name := filepath.Base(filepath.Dir(file)); !slices.Contains(known, name) {
			t.Errorf("no installation of this test has component %s: add it to generate and to the values, and here", name)
		}
	}
}

// Who lets Helm make the system's namespace gets everything else.
func TestReleaseInSystemNamespace(t *testing.T) {
	want := byName(t, prod.helm(t))
	got := byName(t, prod.helm(t, "--namespace", "dexorder-system"))
	if _, ok := want["Namespace /dexorder-system"]; !ok {
		t.Fatal("the chart does not make namespace dexorder-system")
	}
	delete(want, "Namespace /dexorder-system")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with a release in dexorder-system (-want +got):\n%s", diff)
	}
}

// What the values do not know is refused, and so is what they cannot mean.
func TestValuesAreChecked(t *testing.T) {
	for _, test := range []struct{ values, want string }{
		{"reapr: {mode: server}", "reapr"},
		{"reaper: {mood: server}", "mood"},
		{"reaper: {mode: sidecar}", "/reaper/mode"},
		{"server: {replicas: two}", "/server/replicas"},
		{"server: {replicas: 0}", "/server/replicas"},
		{"server: {logLevel: chatty}", "/server/logLevel"},
		{"server: {resources: {request: {cpu: 1}}}", "request"},
		{"image: {registry: registry.example.com/}", "/image/registry"},
		{"image: {tag: 'v1:2'}", "/image/tag"},
		{"gateway: {allow: [backend]}", "/gateway/allow/0"},
		{"nats: {credentials: true}", "/nats/url"},
		{"nats: {url: nats.svc}", "/nats/url"},
		{"isolation: {apiServer: [10.96.0.1]}", "/isolation/apiServer/0"},
		{"isolation: {apiServer: []}", "/isolation/apiServer"},
		{"systemIsolation: {metricsFrom: []}", "/systemIsolation/metricsFrom"},
		{"systemIsolation: {metricsFrom: [{}]}", "/systemIsolation/metricsFrom/0"},
		{"systemIsolation: {gatewayCallers: [{namespace: web}]}", "/systemIsolation/gatewayCallers/0"},
		{"systemIsolation: {webhookCallers: [{ipBlock: {cidr: 10.0.0.1}}]}", "/systemIsolation/webhookCallers/0/ipBlock/cidr"},
		{"systemIsolation: {webhookCallers: [{ipBlock: {cidr: 10.0.0.1/32}}]}", "/systemIsolation/enabled"},
		{"systemIsolation: {enabled: true, apiServer: [10.96.0.1]}", "/systemIsolation/apiServer/0"},
		{"systemIsolation: {enabled: true, extraEgress: [{to: []}]}", "/systemIsolation/extraEgress/0/to"},
		{"certManager: true", "/certManager"},
		{"agents: {enforcePodSecurity: null}", "enforcePodSecurity"},
		{"agents: {leftOut: [kube-system]}", "/agents/leftOut/0"},
	} {
		in := installation{set: test.values}
		said, err := in.runHelm(t)
		if err == nil || !strings.Contains(string(said), test.want) || !strings.Contains(string(said), "values don't meet the specifications") {
			t.Errorf("%s: %v, want that %s is refused:\n%.500s", test.values, err, test.want, said)
		}
	}
}

func (i installation) kustomize(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	dir := t.TempDir()
	var components []string
	for _, c := range i.components {
		components = append(components, "../manifests/components/"+c)
	}
	if err := manifests.Compose(dir, "../manifests/overlays/"+i.overlay, components, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kustomization.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	if strings.Contains(i.more, "\nimages:") {
		text = strings.Replace(text, "images:\n", "", 1)
	}
	files := map[string]string{file: text + i.more}
	for name, content := range i.files {
		files[filepath.Join(dir, name)] = content
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := manifests.Render(t.Context(), dir, "../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func (i installation) helm(t *testing.T, flags ...string) []*unstructured.Unstructured {
	t.Helper()
	said, err := i.runHelm(t, flags...)
	if err != nil {
		t.Fatalf("%v:\n%s", err, said)
	}
	objects, err := manifests.Decode(said)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// runHelm renders the chart with the helm in $HELM, else the one of the tools' module. Where it fails it returns what it said.
func (i installation) runHelm(t *testing.T, flags ...string) ([]byte, error) {
	t.Helper()
	command := []string{"go", "tool", "-modfile=../tools/go.mod", "helm"}
	if binary := os.Getenv("HELM"); binary != "" {
		command = []string{binary}
	}
	command = append(command, "template", "agent-lifecycle", chart, "--kube-version", "1.36.3")
	for _, file := range i.values {
		command = append(command, "--values", filepath.Join(chart, file))
	}
	if i.set != "" {
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(i.set), 0o600); err != nil {
			t.Fatal(err)
		}
		command = append(command, "--values", file)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], flags...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stderr.Bytes(), err
	}
	return stdout.Bytes(), nil
}

func byName(t *testing.T, objects []*unstructured.Unstructured) map[string]map[string]any {
	t.Helper()
	named := map[string]map[string]any{}
	for _, o := range objects {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if named[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		named[name] = o.Object
	}
	return named
}
