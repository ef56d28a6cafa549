package gateway

import (
	"os"
	"strings"
	"testing"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func exampleTemplate(t *testing.T) *Template {
	t.Helper()
	text, err := os.ReadFile("../manifests/components/gateway/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	template, err := ParseTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return template
}

func TestTemplate(t *testing.T) {
	o, err := exampleTemplate(t).render("agent-x")
	if err != nil {
		t.Fatal(err)
	}
	if o.deployment.Name != "agent-x" || o.claim.Name != "agent-x-data" || o.service.Name != "agent-x" || o.podPort() != 3000 {
		t.Errorf("%s, %s, %s, port %d", o.deployment.Name, o.claim.Name, o.service.Name, o.podPort())
	}
	if got := o.deployment.Spec.Selector.MatchLabels[lifecycle.LabelDeployment]; got != "agent-x" {
		t.Errorf("the selector is for %q", got)
	}
}

func TestTemplateErrors(t *testing.T) {
	good := exampleTemplate(t).text
	for _, tt := range []struct{ name, old, new, want string }{
		{"a field that does not exist", "replicas: 1", "replica: 1", `unknown field "replica"`},
		{"another name", "kind: Service\nmetadata:\n  name: \"{deployment}\"", "kind: Service\nmetadata:\n  name: fixed", `template: Service: metadata.name "fixed": must be "{deployment}"`},
		{"a namespace", "kind: Service\nmetadata:", "kind: Service\nmetadata:\n  namespace: x", "template: Service: namespace, ownerReferences and finalizers must be left out"},
		{
			"which is the agent", "- name: agent\n", "- name: helper\n        image: x\n      - name: other\n",
			`template: Deployment: which of the containers "helper", "other" runs the agent?`,
		},
		{"a port of nobody", "targetPort: mcp", "targetPort: http", "whose targetPort is a port of the agent's container"},
		{"no claim", "claimName: \"{deployment}-data\"", "claimName: other", `mounts no claim "{deployment}-data"`},
		{"another kind", "kind: Service", "kind: Secret", "template: v1 Secret: accepted are"},
		{"two of a kind", "apiVersion: v1\nkind: Service", "apiVersion: apps/v1\nkind: Deployment", "there are two of kind Deployment"},
		{"no kind", "apiVersion: v1\nkind: Service", "x: y", "a document has no kind"},
		{"no YAML", "spec:", "\tspec", "template: "},
	} {
		if !strings.Contains(good, tt.old) {
			t.Fatalf("%s: the template has no %q", tt.name, tt.old)
		}
		_, err := ParseTemplate([]byte(strings.Replace(good, tt.old, tt.new, 1)))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := ParseTemplate([]byte(strings.Replace(good, "- name: agent\n", "- name: other\n", 1))); err != nil {
		t.Errorf("the only container is the agent's, whatever its name: %v", err)
	}
	if _, err := ParseTemplate([]byte("# nothing\n")); err == nil || !strings.Contains(err.Error(), "must hold one Deployment") {
		t.Errorf("nothing: %v", err)
	}
}
