package policy_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// fixture is one file of testdata/RULE: a request and the verdict on it.
type fixture struct {
	// Why says in a line what the fixture shows.
	Why string `json:"why"`

	// Namespace of the request. Default: dexorder-agents.
	Namespace string `json:"namespace"`

	// User who sends the request. Default: alice; for a new Pod or ReplicaSet, the controller that makes it.
	User   string   `json:"user"`
	Groups []string `json:"groups"`

	Subresource string `json:"subresource"`

	// Delete makes the request a DELETE of the object, with these options. Its user is by default the account of user
	// agents, with the token of the sidecar in the agent's Pod.
	Delete *metav1.DeleteOptions `json:"delete"`

	// Collection makes it one of a deletecollection.
	Collection bool `json:"collection"`

	// Extra replaces what the API server says of the user's token.
	Extra map[string]authenticationv1.ExtraValue `json:"extra"`

	// Policy is merged (RFC 7386) into the example policy.
	Policy json.RawMessage `json:"policy"`

	// Profile is merged (RFC 7386) into the namespace's profile of the example policy.
	Profile json.RawMessage `json:"profile"`

	// Facts of the cluster. A Pod's owner is alice's Deployment unless it is given; null is none.
	Facts struct {
		Owner  json.RawMessage         `json:"owner"`
		Claims map[string]policy.Claim `json:"claims"`

		// Caller (strategic merge patch) is what has become of the agent's Pod, which ended with 42; null is no Pod.
		Caller json.RawMessage `json:"caller"`

		// CallerOwner replaces the workload of that Pod, alice's Deployment; null is none.
		CallerOwner json.RawMessage `json:"callerOwner"`

		Deployments map[string]*policy.Owner `json:"deployments"`
	} `json:"facts"`

	// RuleTimes are those of the request.
	RuleTimes map[string]policy.RuleTime `json:"ruleTimes"`

	// Offline judges without facts, as kubectl agents check does.
	Offline bool `json:"offline"`

	// Old is what is stored, and makes the request an update of it.
	Old *change `json:"old"`

	// Replace makes the update one by PUT: the change is one of the base, and not of what is stored.
	Replace bool `json:"replace"`

	change `json:",inline"`

	// Afterwards (RFC 6902) is what becomes of the object after injection: by the API server, by other webhooks.
	Afterwards json.RawMessage `json:"afterwards"`

	// Verdict comes last in the file; go test -update writes it.
	Verdict verdict `json:"verdict"`

	// object and stored are the JSON of the request, once it is made.
	object, stored []byte
}

// change makes an object out of a base.
type change struct {
	// Base is a file of testdata/base; pod and replicaset are what the controllers make of agent.yaml, injected.
	// Default: agent, for old that of the fixture.
	Base string `json:"base"`

	// Patch is a strategic merge patch, as kubectl patch takes it.
	Patch json.RawMessage `json:"patch"`

	// JSONPatch (RFC 6902) follows Patch, for what that cannot say.
	JSONPatch json.RawMessage `json:"jsonPatch"`

	// Inject says whether a Deployment is injected first, as in the cluster. Default: true.
	Inject *bool `json:"inject"`
}

type verdict struct {
	Deny     []string `json:"deny,omitempty"`
	Warn     []string `json:"warn,omitempty"`
	Audit    []string `json:"audit,omitempty"`
	Injected []string `json:"injected,omitempty"`
	Unknown  []string `json:"unknown,omitempty"`
}

// now is when the fixtures' facts were gathered.
var now = metav1.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// UIDs of alice's objects.
const (
	deploymentUID = "de91"
	podUID        = "90d1"
)

// Names that the fixtures take for granted.
const (
	userNamespace = "dexorder-agents"

	deploymentController = "system:serviceaccount:kube-system:deployment-controller"
	replicaSetController = "system:serviceaccount:kube-system:replicaset-controller"
	agentAccount         = "system:serviceaccount:dexorder-agents:agent-lifecycle"
)

func readFixture(t testing.TB, file string) *fixture {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{Namespace: userNamespace}
	if err := yaml.UnmarshalStrict(data, f); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if f.Base == "" {
		f.Base = "agent"
	}
	if f.Old != nil && f.Old.Base == "" {
		f.Old.Base = f.Base
	}
	if f.User == "" && f.Delete != nil {
		f.User = agentAccount
	}
	if f.User == "" {
		f.User = "alice"
		if f.Old == nil {
			f.User = map[string]string{"pod": replicaSetController, "replicaset": deploymentController}[f.Base]
		}
		if f.User == "" {
			f.User = "alice"
		}
	}
	return f
}

// policy is the example policy with the fixture's change of a profile.
func (f *fixture) policy(t testing.TB) *policy.Policy {
	t.Helper()
	data := must(yaml.YAMLToJSON(v1alpha1.Example()))(t)
	if f.Policy != nil {
		data = must(jsonpatch.MergePatch(data, f.Policy))(t)
	}
	if f.Profile != nil {
		index := 0
		if f.Namespace != userNamespace {
			index = 1
		}
		var file struct{ Profiles []json.RawMessage }
		if err := json.Unmarshal(data, &file); err != nil {
			t.Fatal(err)
		}
		merged := must(jsonpatch.MergePatch(file.Profiles[index], f.Profile))(t)
		op := fmt.Sprintf(`[{"op": "replace", "path": "/profiles/%d", "value": %s}]`, index, merged)
		data = must(must(jsonpatch.DecodePatch([]byte(op)))(t).Apply(data))(t)
	}
	return must(policy.New(must(v1alpha1.Decode(data))(t)))(t)
}

// request is what the webhook would judge, and the warnings of the injection before.
func (f *fixture) request(t testing.TB, p *policy.Policy) (*policy.Request, []string) {
	t.Helper()
	r := &policy.Request{
		Operation: admissionv1.Create, Namespace: f.Namespace, Subresource: f.Subresource, RuleTimes: f.RuleTimes,
	}
	r.User.Username, r.User.Groups = f.User, f.Groups

	start := f.base(t, p, f.Base)
	if f.Old != nil {
		f.stored = f.Old.apply(t, f.base(t, p, f.Old.Base))
		r.Operation, r.Old = admissionv1.Update, decode(t, f.stored)
		if f.Old.injects(r.Old) {
			p.Injector(f.Namespace).Deployment(r.Old.Deployment, nil, inject.Options{})
			f.stored = must(json.Marshal(r.Old.Deployment))(t)
		}
		if !f.Replace {
			start = f.stored
		}
	}
	f.object = f.apply(t, start)
	r.Object = decode(t, f.object)
	var warnings []string
	if f.injects(r.Object) {
		var old *appsv1.Deployment
		if r.Old != nil {
			old = r.Old.Deployment
		}
		_, warnings = p.Injector(f.Namespace).Deployment(r.Object.Deployment, old, inject.Options{})
		f.object = must(json.Marshal(r.Object.Deployment))(t)
	}
	if f.Afterwards != nil {
		f.object = must(must(jsonpatch.DecodePatch(f.Afterwards))(t).Apply(f.object))(t)
		r.Object = decode(t, f.object)
	}
	r.Name = r.Object.Meta.Name
	if f.Delete != nil {
		f.makeDeletion(t, r, p)
	}
	if !f.Offline {
		r.Facts = f.facts(t, r, p)
	}
	return r, warnings
}

// makeDeletion turns the request to store an object into one to delete it.
func (f *fixture) makeDeletion(t testing.TB, r *policy.Request, p *policy.Policy) {
	t.Helper()
	r.Operation, r.Object, r.Old, r.Deletion = admissionv1.Delete, nil, r.Object, f.Delete
	if r.Old.Meta.UID == "" {
		r.Old.Meta.UID = deploymentUID
	}
	if f.Collection {
		r.Name = ""
	}
	f.stored, f.object = f.object, nil
	pod := decodePod(t, f.base(t, p, "pod"))
	r.User.Extra = map[string]authenticationv1.ExtraValue{
		"authentication.kubernetes.io/pod-name": {pod.Name}, "authentication.kubernetes.io/pod-uid": {podUID},
	}
	if f.Extra != nil {
		r.User.Extra = f.Extra
	}
}

// caller is the agent's Pod some seconds after it ended with 42, with the fixture's changes.
func (f *fixture) caller(t testing.TB, p *policy.Policy) *policy.Caller {
	t.Helper()
	caller := &policy.Caller{}
	if string(f.Facts.Caller) != "null" {
		data := f.base(t, p, "pod")
		status := `{"metadata": {"uid": "` + podUID + `"}, "status": {"startTime": "2026-01-02T03:00:00Z", "containerStatuses": [
			{"name": "agent", "state": {"terminated": {"exitCode": 42, "startedAt": "2026-01-02T03:00:01Z",
				"finishedAt": "2026-01-02T03:04:03Z", "containerID": "containerd://c0ffee"}}},
			{"name": "lifecycle-sidecar", "state": {"running": {}}}]}}`
		data = must(strategicpatch.StrategicMergePatch(data, []byte(status), corev1.Pod{}))(t)
		if f.Facts.Caller != nil {
			data = must(jsonpatch.MergePatch(data, f.Facts.Caller))(t)
		}
		caller.Pod = decodePod(t, data)
	}
	switch {
	case f.Facts.CallerOwner != nil:
		if err := yaml.UnmarshalStrict(f.Facts.CallerOwner, &caller.Owner); err != nil {
			t.Fatalf("facts.callerOwner: %v", err)
		}
	default:
		alice := decode(t, f.apply(t, f.base(t, p, "agent")))
		if alice.Deployment == nil {
			alice = decode(t, f.base(t, p, "agent"))
		}
		p.Injector(f.Namespace).Deployment(alice.Deployment, nil, inject.Options{})
		caller.Owner = &policy.Owner{
			Kinds: []string{"ReplicaSet", "Deployment"}, Name: "alice", UID: deploymentUID, Labels: alice.Meta.Labels,
		}
	}
	return caller
}

func decodePod(t testing.TB, data []byte) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	if err := json.Unmarshal(data, pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func (f *fixture) facts(t testing.TB, r *policy.Request, p *policy.Policy) *policy.Facts {
	t.Helper()
	facts := &policy.Facts{Now: now, Claims: f.Facts.Claims, Deployments: f.Facts.Deployments}
	if p.Needs(r).Caller {
		facts.Caller = f.caller(t, p)
	}
	if r.Object == nil {
		return facts
	}
	switch {
	case f.Facts.Owner != nil:
		if err := yaml.UnmarshalStrict(f.Facts.Owner, &facts.Owner); err != nil {
			t.Fatalf("facts.owner: %v", err)
		}
	case r.Object.Kind == "Pod":
		alice := decode(t, f.base(t, p, "agent")).Deployment
		p.Injector(f.Namespace).Deployment(alice, nil, inject.Options{})
		facts.Owner = &policy.Owner{
			Kinds: []string{"ReplicaSet", "Deployment"}, Name: alice.Name, Labels: alice.Labels,
		}
		if containers := alice.Spec.Template.Spec.Containers; len(containers) > 1 {
			facts.Owner.Sidecar = &containers[1]
		} else {
			facts.Owner.Volumes = alice.Spec.Template.Spec.Volumes
		}
	}
	return facts
}

// base reads or makes a base in the fixture's namespace.
func (f *fixture) base(t testing.TB, p *policy.Policy, name string) []byte {
	t.Helper()
	switch name {
	case "replicaset":
		alice := decode(t, f.base(t, p, "agent")).Deployment
		p.Injector(f.Namespace).Deployment(alice, nil, inject.Options{})
		return must(json.Marshal(replicaSetOf(alice)))(t)
	case "pod":
		var set appsv1.ReplicaSet
		if err := json.Unmarshal(f.base(t, p, "replicaset"), &set); err != nil {
			t.Fatal(err)
		}
		return must(json.Marshal(podOf(&set)))(t)
	}
	data := must(yaml.YAMLToJSON(must(os.ReadFile(filepath.Join("testdata", "base", name+".yaml")))(t)))(t)
	return must(jsonpatch.MergePatch(data, fmt.Appendf(nil, `{"metadata": {"namespace": %q}}`, f.Namespace)))(t)
}

func (c *change) injects(o *workload.Object) bool {
	return o.Deployment != nil && (c.Inject == nil || *c.Inject)
}

func (c *change) apply(t testing.TB, object []byte) []byte {
	t.Helper()
	if c.Patch != nil {
		object = must(strategicpatch.StrategicMergePatch(object, c.Patch, typeOf(t, object)))(t)
	}
	if c.JSONPatch != nil {
		object = must(must(jsonpatch.DecodePatch(c.JSONPatch))(t).Apply(object))(t)
	}
	return object
}

// typeOf returns a value of the object's type, whose tags say how its lists are merged.
func typeOf(t testing.TB, object []byte) any {
	t.Helper()
	types := map[string]any{
		"Deployment": appsv1.Deployment{}, "ReplicaSet": appsv1.ReplicaSet{}, "StatefulSet": appsv1.StatefulSet{},
		"DaemonSet": appsv1.DaemonSet{}, "Job": batchv1.Job{}, "CronJob": batchv1.CronJob{}, "Pod": corev1.Pod{},
		"PersistentVolumeClaim": corev1.PersistentVolumeClaim{}, "Service": corev1.Service{},
		"ReplicationController": corev1.ReplicationController{}, "Scale": autoscalingv1.Scale{},
	}
	return types[kindOf(t, object).Kind]
}

func kindOf(t testing.TB, object []byte) schema.GroupVersionKind {
	t.Helper()
	var m struct{ APIVersion, Kind string }
	if err := json.Unmarshal(object, &m); err != nil {
		t.Fatal(err)
	}
	return schema.FromAPIVersionAndKind(m.APIVersion, m.Kind)
}

func decode(t testing.TB, object []byte) *workload.Object {
	t.Helper()
	return must(workload.Decode(kindOf(t, object), object))(t)
}

func judge(p *policy.Policy, r *policy.Request, injected []string) (verdict, policy.Verdict) {
	v := p.Review(r)
	return verdict{
		Deny: lines(v.Denials), Warn: lines(v.Warnings), Audit: lines(v.Audits), Injected: injected, Unknown: v.Unchecked,
	}, v
}

func lines(violations []policy.Violation) []string {
	var s []string
	for _, v := range violations {
		s = append(s, v.String())
	}
	return s
}

// write puts the verdict at the end of a fixture's file.
func (v verdict) write(t testing.TB, file string) {
	t.Helper()
	data := must(os.ReadFile(file))(t)
	if i := bytes.Index(data, []byte("\nverdict:")); i >= 0 {
		data = data[:i+1]
	}
	if !reflect.DeepEqual(v, verdict{}) {
		data = append(data, "verdict:\n"...)
	}
	for _, list := range []struct {
		name  string
		lines []string
	}{{"deny", v.Deny}, {"warn", v.Warn}, {"audit", v.Audit}, {"injected", v.Injected}, {"unknown", v.Unknown}} {
		if len(list.lines) > 0 {
			data = fmt.Appendf(data, "  %s:\n", list.name)
		}
		for _, line := range list.lines {
			data = fmt.Appendf(data, "  - '%s'\n", strings.ReplaceAll(line, "'", "''"))
		}
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// must lets a test go on with a result or end.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
