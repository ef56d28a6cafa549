package webhook

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// installedPolicy is what the example policy covers.
var installedPolicy = []v1alpha1.Namespaces{{Names: []string{"dexorder-agents"}}, {Prefixes: []string{"agent-"}}}

func installedWebhooks(t *testing.T) (mutating, validating []registered) {
	t.Helper()
	var m admissionregistrationv1.MutatingWebhookConfiguration
	var v admissionregistrationv1.ValidatingWebhookConfiguration
	for path, into := range map[string]any{
		"../manifests/base/mutating-webhook.yaml": &m, "../manifests/base/validating-webhook.yaml": &v,
	} {
		data, err := os.ReadFile(path)
		must(t, err)
		must(t, yaml.UnmarshalStrict(data, into))
	}
	return mutatingWebhooks(&m), validatingWebhooks(&v)
}

// The manifests register what the example policy covers and what the server understands.
func TestManifestsCover(t *testing.T) {
	mutating, validating := installedWebhooks(t)
	found := append(compare(mutating, "/mutate", mutates, newScope(installedPolicy)),
		compare(validating, "/validate", validates, newScope(installedPolicy))...)
	for _, difference := range found {
		t.Error(difference)
	}
}

func TestCoverageDiffers(t *testing.T) {
	ignore := admissionregistrationv1.Ignore
	tests := []struct {
		name   string
		change func(*registered)
		want   string
	}{
		{"path", func(w *registered) { w.path = "/elsewhere" }, "no webhook calls /validate"},
		{"failure policy", func(w *registered) { w.failurePolicy = &ignore }, "failurePolicy is Ignore"},
		{"selector", func(w *registered) { w.selects = true }, "namespaceSelector"},
		{"no rules", func(w *registered) { w.rules = nil }, "rules leave out UPDATE of pods/resize"},
		{"fewer rules", func(w *registered) { w.rules = w.rules[:1] }, "rules leave out CREATE of jobs.batch"},
		{"fewer operations", func(w *registered) {
			w.rules = slices.Clone(w.rules)
			w.rules[0].Operations = []admissionregistrationv1.OperationType{"CREATE"}
		}, "rules leave out UPDATE of deployments.apps"},
		{"no conditions", func(w *registered) { w.conditions = nil }, "cannot be compared"},
		{"another name", condition(`request.namespace == "others" || request.namespace.startsWith("agent-")`), "select the namespaces others, agent-*, the policy covers dexorder-agents, agent-*"},
		{"a name less", condition(`request.namespace.startsWith("agent-")`), "select the namespaces agent-*"},
		{"a name more", condition(`request.namespace in ["dexorder-agents"] || request.namespace.startsWith("agent-")`), "cannot be compared"},
		{"negated", condition(`!(request.namespace == "dexorder-agents" || request.namespace.startsWith("agent-"))`), "cannot be compared"},
		{"deletions by fewer", deletersOf(`request.operation != "DELETE" || request.userInfo.username.startsWith("system:serviceaccount:agent-")`),
			"deletions by accounts of the namespaces agent-*, the policy covers dexorder-agents, agent-*"},
		{"deletions by no agent", deletersOf(`request.operation != "DELETE"`), "deletions by accounts of the namespaces none, the policy"},
		{"deletions by a prefix for a name", deletersOf(`request.operation != "DELETE"
			|| request.userInfo.username.startsWith('system:serviceaccount:dexorder-agents')
			|| request.userInfo.username.startsWith('system:serviceaccount:agent-')`), "accounts of the namespaces agent-*, dexorder-agents*"},
		{"leaves one out", leavingOut(`!(request.namespace in ["agent-lab"])`),
			"select the namespaces dexorder-agents, agent-*, but not agent-lab, the policy covers dexorder-agents, agent-*"},
		{"leaves out in another form", leavingOut(`!(request.namespace in ["agent-lab"]) || true`), "cannot be compared"},
		{"narrowed", condition(`(request.namespace == "dexorder-agents" || request.namespace.startsWith("agent-")) && false`), "cannot be compared"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, validating := installedWebhooks(t)
			tt.change(&validating[0])
			found := strings.Join(compare(validating, "/validate", validates, newScope(installedPolicy)), "\n")
			if !strings.Contains(found, tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
		})
	}
}

// What the policy leaves out of a prefix the registrations leave out, too, or requests there wait for the servers.
func TestCoverageLeavesOut(t *testing.T) {
	policy := newScope([]v1alpha1.Namespaces{{Names: []string{"dexorder-agents"}}, {Prefixes: []string{"agent-"}, Except: []string{"agent-lab", "agent-b"}}})
	for expression, want := range map[string]string{
		`!(request.namespace in [])`: "select the namespaces dexorder-agents, agent-*, the policy covers " +
			"dexorder-agents, agent-*, but not agent-b, but not agent-lab",
		`!(request.namespace in ["agent-lab"])`:                   "select the namespaces dexorder-agents, agent-*, but not agent-lab, the policy",
		`!(request.namespace in ["agent-lab","agent-b"])`:         "",
		"!( request.namespace in [ 'agent-b' , \"agent-lab\" ] )": "",
	} {
		_, validating := installedWebhooks(t)
		leavingOut(expression)(&validating[0])
		found := strings.Join(compare(validating, "/validate", validates, policy), "\n")
		if want == "" && found != "" || !strings.Contains(found, want) {
			t.Errorf("%s: found %q, want %q", expression, found, want)
		}
	}
	if policy.covers("agent-lab") || !policy.covers("agent-labs") {
		t.Error("a namespace that is left out is covered, or another one is not")
	}
	if s := newScope([]v1alpha1.Namespaces{{Prefixes: []string{"agent-"}, Except: []string{"agent-lab"}}, {Names: []string{"agent-lab"}}}); !s.covers("agent-lab") {
		t.Error("a namespace that another profile covers is left out")
	}
}

// leavingOut replaces the condition that leaves namespaces out.
func leavingOut(expression string) func(*registered) {
	return func(w *registered) {
		w.conditions = slices.Clone(w.conditions)
		i := slices.IndexFunc(w.conditions, func(c admissionregistrationv1.MatchCondition) bool { return c.Name == "not-left-out" })
		w.conditions[i].Expression = expression
	}
}

// A registration without stamps is no difference, since nothing unjudged passes by it; it is said all the same.
func TestStampCoverage(t *testing.T) {
	fail := admissionregistrationv1.Fail
	tests := []struct {
		name   string
		change func(*registered)
		want   []string
	}{
		{"as installed", func(*registered) {}, nil},
		{"not registered", func(w *registered) { w.path = "/elsewhere" }, []string{"no webhook calls /stamp"}},
		{"fewer rules", func(w *registered) { w.rules = w.rules[:1] },
			[]string{`webhook "stamp.lifecycle.dexorder.io": rules leave out CREATE of jobs.batch`}},
		{"failure policy", func(w *registered) { w.failurePolicy = &fail },
			[]string{`webhook "stamp.lifecycle.dexorder.io": failurePolicy is not Ignore: what is only to be stamped waits for this server`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mutating, _ := installedWebhooks(t)
			tt.change(&mutating[1])
			if found := compareStamps(mutating); !slices.Equal(found, tt.want) {
				t.Errorf("found %q, want %q", found, tt.want)
			}
			if found := compare(mutating, "/mutate", mutates, newScope(installedPolicy)); len(found) > 0 {
				t.Errorf("taken for a difference of /mutate: %q", found)
			}
		})
	}
}

func TestStampNoticeIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	c := NewCoverage(unreachable{}, "agent-lifecycle", installedPolicy, NewMetrics(prometheus.NewRegistry(), "test"),
		slog.New(slog.NewTextHandler(&log, nil)))
	for _, notices := range [][]string{{"one"}, {"one"}, nil, {"two"}} {
		c.notice(context.Background(), notices)
	}
	if one, two := strings.Count(log.String(), "one"), strings.Count(log.String(), "two"); one != 1 || two != 1 {
		t.Errorf("said %d and %d times, want once each: %s", one, two, log.String())
	}
	c.tell(nil)
	if err := c.Check(); err != nil {
		t.Errorf("a notice is taken for a difference: %v", err)
	}
}

func condition(expression string) func(*registered) {
	return func(w *registered) {
		w.conditions = []admissionregistrationv1.MatchCondition{{Name: "x", Expression: expression}}
	}
}

func TestGatewayDiffers(t *testing.T) {
	_, validating := installedWebhooks(t)
	file, err := v1alpha1.Decode(v1alpha1.Example())
	must(t, err)
	if found := compareGateway(validating, "/validate", file.Identities.Gateway); len(found) > 0 {
		t.Errorf("the manifests and the example policy: %q", found)
	}
	found := strings.Join(compareGateway(validating, "/validate", "system:serviceaccount:front:door"), "\n")
	for _, want := range []string{
		`"service-of-gateway" means account "system:serviceaccount:dexorder-system:gateway"`, `"deletes-as-agent-or-gateway"`,
	} {
		if !strings.Contains(found, want) {
			t.Errorf("found %q, want %q", found, want)
		}
	}
}

// deletersOf replaces the condition on who deletes.
func deletersOf(expression string) func(*registered) {
	return func(w *registered) {
		w.conditions = slices.Clone(w.conditions)
		for i := range w.conditions {
			if w.conditions[i].Name == "deletes-as-agent-or-gateway" {
				w.conditions[i].Expression = expression
			}
		}
	}
}

func TestCoverageFormsAreEqual(t *testing.T) {
	for _, expression := range []string{
		`request.namespace == "dexorder-agents" || request.namespace.startsWith("agent-")`,
		`request.namespace.startsWith('agent-')||(request.namespace=='dexorder-agents')`,
	} {
		_, validating := installedWebhooks(t)
		condition(expression)(&validating[0])
		if found := compare(validating, "/validate", validates, newScope(installedPolicy)); len(found) > 0 {
			t.Errorf("%s: %q", expression, found)
		}
	}
}

// unreachable is an API server that does not answer.
type unreachable struct{ client.Reader }

func (unreachable) Get(context.Context, client.ObjectKey, client.Object, ...client.GetOption) error {
	return errors.New("unreachable")
}

func TestCoverageUnknown(t *testing.T) {
	c := NewCoverage(unreachable{}, "agent-lifecycle", installedPolicy, NewMetrics(prometheus.NewRegistry(), "test"), slog.New(slog.DiscardHandler))
	if err := c.look(context.Background()); err == nil {
		t.Error("look: no error")
	}
	if err := c.Check(); err == nil {
		t.Error("what was never read is taken for equal")
	}
}
