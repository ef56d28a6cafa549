package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

func examplePolicy(t testing.TB) *policy.Policy {
	t.Helper()
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.New(file)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// everyKind is what Decode understands.
var everyKind = []schema.GroupVersionKind{
	{Group: "apps", Version: "v1", Kind: "Deployment"}, {Group: "apps", Version: "v1", Kind: "ReplicaSet"},
	{Group: "apps", Version: "v1", Kind: "StatefulSet"}, {Group: "apps", Version: "v1", Kind: "DaemonSet"},
	{Group: "batch", Version: "v1", Kind: "Job"}, {Group: "batch", Version: "v1", Kind: "CronJob"},
	{Version: "v1", Kind: "ReplicationController"}, {Version: "v1", Kind: "Pod"},
	{Group: "autoscaling", Version: "v1", Kind: "Scale"},
}

// TestOddRequests judges objects of every kind that hold nothing, beside old ones of every kind, with facts that make
// no sense. None may end in a panic, and no user brings anything but a scale through.
func TestOddRequests(t *testing.T) {
	p := examplePolicy(t)
	var facts []*policy.Facts
	for _, owner := range []*policy.Owner{
		nil, {}, {Kinds: []string{"Deployment"}}, {Kinds: []string{"ReplicaSet", "Deployment"}, Sidecar: &corev1.Container{}},
		{Kinds: []string{"Rollout"}},
	} {
		facts = append(facts, &policy.Facts{Owner: owner})
	}
	facts = append(facts, nil)
	empty := func(gvk schema.GroupVersionKind) *workload.Object {
		o, err := workload.Decode(gvk, []byte(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, namespace := range []string{userNamespace, "agent-ceo"} {
		for _, kind := range everyKind {
			for i, f := range facts {
				for _, user := range []string{"", "alice", replicaSetController} {
					r := &policy.Request{
						Operation: admissionv1.Create, Namespace: namespace, Object: empty(kind), Facts: f,
					}
					r.User.Username = user
					p.Needs(r)
					verdict := p.Review(r)
					if verdict.Allowed() && kind.Kind != "Scale" && namespace == userNamespace && user != replicaSetController {
						t.Errorf("an empty %s by %q with facts %d is admitted in %s", kind.Kind, user, i, namespace)
					}
					for _, old := range everyKind {
						r.Operation, r.Old = admissionv1.Update, empty(old)
						p.Needs(r)
						p.Review(r)
					}
				}
			}
		}
	}
}

// TestOldOfAnotherKind is judged as if it were new: nothing in it can be compared.
func TestOldOfAnotherKind(t *testing.T) {
	p := examplePolicy(t)
	agent := `{"metadata": {"name": "a"}, "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "nginx"}]}}}}`
	deployment, err := workload.Decode(everyKind[0], []byte(agent))
	if err != nil {
		t.Fatal(err)
	}
	replicaSet, err := workload.Decode(everyKind[1], []byte(agent))
	if err != nil {
		t.Fatal(err)
	}
	r := &policy.Request{
		Operation: admissionv1.Update, Namespace: userNamespace, Object: deployment, Old: replicaSet, Facts: &policy.Facts{},
	}
	if v := p.Review(r); v.Allowed() {
		t.Error("a Deployment passes because a ReplicaSet was like it")
	}
}

// TestNoProfile allows everything where no profile holds, and says so by an empty name.
func TestNoProfile(t *testing.T) {
	p := examplePolicy(t)
	o, err := workload.Decode(everyKind[7], []byte(`{"spec": {"hostNetwork": true}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, namespace := range []string{"default", "agent-", "agents-a", "xagent-a", "dexorder-agents-2", "", "Agent-a"} {
		r := &policy.Request{Operation: admissionv1.Create, Namespace: namespace, Object: o}
		if v := p.Review(r); !v.Allowed() || v.Profile != "" {
			t.Errorf("namespace %q is judged by profile %q", namespace, v.Profile)
		}
		if needs := p.Needs(r); needs.Owner || needs.Claims != nil {
			t.Errorf("namespace %q needs %+v", namespace, needs)
		}
		if p.Injector(namespace) != nil {
			t.Errorf("namespace %q has an injector", namespace)
		}
	}
	for namespace, profile := range map[string]string{userNamespace: "user-agents", "agent-a": "role-agents"} {
		r := &policy.Request{Operation: admissionv1.Create, Namespace: namespace, Object: o}
		if v := p.Review(r); v.Allowed() || v.Profile != profile {
			t.Errorf("namespace %q: profile %q, allowed %v", namespace, v.Profile, v.Allowed())
		}
	}
}

// TestMessageIsBounded fills a message with everything that a user can put there.
func TestMessageIsBounded(t *testing.T) {
	long := strings.Repeat("é\x1b[31m\n", 1000)
	var v policy.Verdict
	for range 200 {
		v.Denials = append(v.Denials, policy.Violation{Rule: "rule", Field: "field", Message: fmt.Sprintf("%q", long)})
	}
	checkMessage(t, v)
	if want := "and 197 more"; !strings.Contains(v.Message(), want) {
		t.Errorf("does not say %q:\n%s", want, v.Message())
	}
	if (policy.Verdict{}).Message() != "" {
		t.Error("an allowed request has a message")
	}
}

// checkMessage holds a message to what may go to logs, events and terminals.
func checkMessage(t testing.TB, v policy.Verdict) {
	t.Helper()
	message := v.Message()
	if len(message) > 4200 {
		t.Errorf("the message has %d bytes", len(message))
	}
	if !utf8.ValidString(message) {
		t.Errorf("the message is not UTF-8: %q", message)
	}
	for _, r := range strings.ReplaceAll(message, "\n- ", "") {
		if unicode.IsControl(r) {
			t.Errorf("the message has the control character %q: %q", r, message)
			break
		}
	}
}
