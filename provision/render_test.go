package provision

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func marketing() Role { return Role{Name: "marketing", Org: "dexorder", Environment: "test"} }

// kustomization writes a kustomization of somebody's own.
func kustomization(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	k := "resources: [all.yaml]\n"
	for name, content := range map[string]string{"kustomization.yaml": k, "all.yaml": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const ownNamespace = `{apiVersion: v1, kind: Namespace, metadata: {name: agent-x, labels: {agent-role: x, org: dexorder, environment: test}}}
`

// A role that cannot be is refused, with every mistake and with what would be accepted.
func TestRenderRefuses(t *testing.T) {
	x := func(text string) Role { return Role{Name: "x", Dir: kustomization(t, text)} }
	object := func(kind, rest string) string {
		return ownNamespace + "---\n{kind: " + kind + ", metadata: {name: it, namespace: agent-x}, " + rest + "}\n"
	}
	for name, tc := range map[string]struct {
		role Role
		want []string
	}{
		"everything wrong":   {Role{Name: "A", Org: "b.c", Environment: ""}, []string{`role "A"`, `org "b.c"`, `environment is missing: say which, with --env`}},
		"too long":           {Role{Name: strings.Repeat("a", 60), Org: "o", Environment: "e"}, []string{"more than 63 characters"}},
		"no such component":  {Role{Name: "a", Org: "o", Environment: "e", Components: []string{"../base"}}, []string{`component "../base": accepted are git-ssh`}},
		"components of both": {Role{Name: "x", Dir: "dir", Components: []string{"git-ssh"}}, []string{"lists its components itself"}},
		"no such directory":  {Role{Name: "x", Dir: "testdata/none"}, []string{"kustomize: ", "testdata/none"}},
		"a Secret":           {x(object("Secret", "apiVersion: v1, stringData: {a: b}")), []string{"Secret it: Secrets are named by what uses them"}},
		"a ClusterRole":      {x(object("ClusterRole", "apiVersion: rbac.authorization.k8s.io/v1")), []string{"ClusterRole it of rbac.authorization.k8s.io/v1: accepted are Namespace, "}},
		"an old version":     {x(object("Deployment", "apiVersion: apps/v1beta1")), []string{"Deployment it of apps/v1beta1"}},
		"no namespace":       {x("{apiVersion: v1, kind: ConfigMap, metadata: {name: it}}"), []string{"there are 0 namespaces"}},
		"two namespaces":     {x(ownNamespace + "---\n" + strings.ReplaceAll(ownNamespace, "agent-x", "agent-y")), []string{"there are 2 namespaces (agent-x, agent-y)"}},
		"somewhere else":     {x(strings.Replace(object("ConfigMap", "apiVersion: v1"), "namespace: agent-x", "namespace: kube-system", 1)), []string{`metadata.namespace is "kube-system", and must be agent-x`}},
		"no agent's name":    {x(strings.Replace(ownNamespace, "agent-x", "kube-system", 1)), []string{`namespace "kube-system": the name of a role agent's namespace starts with "agent-"`}},
		"another role":       {x(strings.Replace(ownNamespace, "agent-role: x", "agent-role: y", 1)), []string{`its label agent-role is "y"`}},
		"no org":             {x(strings.Replace(ownNamespace, "org: dexorder, ", "", 1)), []string{"it has no label org"}},
		"a bad org":          {x(strings.Replace(ownNamespace, "org: dexorder", "org: Dex_Order", 1)), []string{`org "Dex_Order"`}},
		"nothing to run it":  {Role{Name: "x", Dir: kustomization(t, ownNamespace), Image: "i"}, []string{`no Deployment would run it`}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Render(tc.role)
			if err == nil {
				t.Fatal("is rendered")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %s", err, want)
				}
			}
		})
	}
}

// Flags win over what a kustomization says of org, environment and image; of the role it has to say the same.
func TestRenderOwn(t *testing.T) {
	dir := kustomization(t, ownNamespace)
	r, err := Render(Role{Name: "x", Dir: dir, Org: "genbrain"})
	if err != nil {
		t.Fatal(err)
	}
	labels := r.Objects[0].GetLabels()
	if labels[lifecycle.LabelOrg] != "genbrain" || labels[lifecycle.LabelEnvironment] != "test" || r.Role.Environment != "test" || r.Namespace != "agent-x" {
		t.Errorf("%v, %+v", labels, r)
	}
}

// What confines an agent is applied before the agent, and the namespace before everything.
func TestRenderOrder(t *testing.T) {
	role := marketing()
	role.Image, role.Components = "ghcr.io/dexorder/agent:v9", Components()
	r, err := Render(role)
	if err != nil {
		t.Fatal(err)
	}
	last, deployments := 0, 0
	for _, o := range r.Objects {
		if rank(o) < last {
			t.Errorf("%s comes late", nameOf(o))
		}
		last = rank(o)
		if o.GetKind() == kindDeployment {
			deployments++
			containers, _, _ := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
			if image := containers[0].(map[string]any)["image"]; image != role.Image {
				t.Errorf("it runs %s", image)
			}
		}
	}
	if r.Objects[0].GetKind() != kindNamespace || deployments != 1 {
		t.Errorf("%d Deployments, first is %s", deployments, nameOf(r.Objects[0]))
	}
}

func TestNamespaceOfRole(t *testing.T) {
	for role, want := range map[string]string{"ceo": "agent-ceo", "agent-ceo": "agent-ceo"} {
		if got := (&Role{Name: role}).namespace(); got != want {
			t.Errorf("%s: %s", role, got)
		}
	}
}

// A Secret counts as required if anything requires it.
func TestSecrets(t *testing.T) {
	dir := kustomization(t, ownNamespace+`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent, namespace: agent-x}
spec:
  template:
    spec:
      imagePullSecrets: [{name: pull}]
      initContainers:
      - {name: i, env: [{name: A, valueFrom: {secretKeyRef: {name: both, key: a}}}]}
      containers:
      - {name: agent, envFrom: [{secretRef: {name: both, optional: true}}, {secretRef: {name: optional, optional: true}}]}
      volumes:
      - {name: v, secret: {secretName: volume}}
      - {name: p, projected: {sources: [{secret: {name: projected}}]}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly, namespace: agent-x}
spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, envFrom: [{secretRef: {name: cron}}]}]}}}}}
`)
	r, err := Render(Role{Name: "x", Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	uses, err := r.Secrets()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, use := range uses {
		name := use.Name
		if use.Optional {
			name += "?"
		}
		got = append(got, name)
	}
	if s := strings.Join(got, " "); s != "both cron optional? projected pull? volume" {
		t.Errorf("%s", s)
	}
	template, err := r.Template("dexorder-system")
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := unstructured.NestedString(template.Object, "data", templateKey)
	for want, times := range map[string]int{"kind: Secret\n": 4, "agent-x": 0, `namespace: '{namespace}'`: 2, "name: '{namespace}'": 1} {
		if got := strings.Count(text, want); got != times {
			t.Errorf("the template has %q %d times, want %d:\n%s", want, got, times, text)
		}
	}
	if template.GetName() != "role.x.dexorder.test" || template.GetLabels()[lifecycle.LabelRoleTemplate] != "x" {
		t.Errorf("%s %v", template.GetName(), template.GetLabels())
	}
}
