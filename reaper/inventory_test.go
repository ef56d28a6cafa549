package reaper

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// stock is an inventory whose clock stands, and what it told.
type stock struct {
	*inventory
	now  time.Time
	told []string
}

func newStock() *stock {
	s := &stock{now: noon}
	s.inventory = newInventory(func(name string) bool { return strings.HasPrefix(name, "agent-") }, func() time.Time { return s.now })
	s.notify = func(before, after record, first bool) {
		what := map[bool]string{true: "new ", false: "changed "}[before == nil]
		r := after
		if after == nil {
			what, r = "gone ", before
		}
		if first {
			what += "first "
		}
		s.told = append(s.told, what+keyOf(r))
	}
	return s
}

func (s *stock) tells(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(s.told)
	slices.Sort(want)
	if !slices.Equal(s.told, want) {
		t.Errorf("told of %q, want %q", s.told, want)
	}
	s.told = nil
}

func in(namespace, name string, uid types.UID) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid}
}

func aNamespace(name string) record {
	return recordOf(&corev1.Namespace{ObjectMeta: in("", name, types.UID("uid-of-"+name))})
}

func podIn(namespace, name string, uid types.UID, phase corev1.PodPhase) record {
	return recordOf(&corev1.Pod{ObjectMeta: in(namespace, name, uid), Status: corev1.PodStatus{Phase: phase}})
}

// What counts as activity is that a Pod appears, changes or ends while somebody looks.
func TestPodChanges(t *testing.T) {
	s := newStock()
	changed := func(want time.Time) {
		t.Helper()
		if got := s.facts("agent-a").podChanged; !got.Equal(want) {
			t.Errorf("the last change is %s, want %s", got, want)
		}
		s.now = s.now.Add(time.Minute)
	}
	s.put(aNamespace("agent-a"), true)
	s.put(podIn("agent-a", "one", "1", corev1.PodRunning), true)
	changed(time.Time{}) // it was there before
	s.put(podIn("agent-a", "one", "1", corev1.PodRunning), false)
	changed(time.Time{}) // nothing that counts has changed
	s.put(podIn("agent-a", "one", "1", corev1.PodSucceeded), false)
	at := s.now
	changed(at)
	s.put(recordOf(&appsv1.Deployment{ObjectMeta: in("agent-a", "worker", "2")}), false)
	changed(at) // is no Pod
	s.put(podIn("agent-a", "two", "3", corev1.PodPending), false)
	changed(s.now)
	s.put(podIn("agent-a", "two", "4", corev1.PodPending), false) // another one of that name
	changed(s.now)
	s.drop(podIn("agent-a", "two", "4", corev1.PodPending))
	at = s.now
	changed(at)
	s.drop(podIn("agent-a", "two", "4", corev1.PodPending))
	changed(at) // it had gone already
}

// What the content of other namespaces is, is nobody's business.
func TestInventoryOfOthers(t *testing.T) {
	s := newStock()
	s.put(aNamespace("kube-system"), false)
	s.put(podIn("kube-system", "dns", "1", corev1.PodRunning), false)
	s.drop(podIn("kube-system", "dns", "1", corev1.PodRunning))
	s.tells(t)
	if s.facts("kube-system") != nil || len(s.names()) > 0 || len(s.places) > 0 {
		t.Errorf("it is remembered: %v", s.places)
	}
}

// A list that takes the place of what was known says what is gone, of its own kind alone.
func TestReplace(t *testing.T) {
	s := newStock()
	pods, deployments := feedOf(t, "Pod"), feedOf(t, "Deployment")
	worker := recordOf(&appsv1.Deployment{ObjectMeta: in("agent-a", "worker", "1")})
	replica := recordOf(&appsv1.ReplicaSet{ObjectMeta: in("agent-a", "worker", "2")})
	s.replace([]record{aNamespace("agent-a")}, feedOf(t, "Namespace").holds, true)
	s.replace([]record{worker}, deployments.holds, true)
	s.replace([]record{replica}, feedOf(t, "ReplicaSet").holds, true)
	s.replace([]record{podIn("agent-a", "one", "3", corev1.PodRunning), podIn("agent-b", "one", "4", corev1.PodRunning)}, pods.holds, true)
	s.tells(t, "new first namespace/agent-a/agent-a", "new first Deployment/agent-a/worker", "new first ReplicaSet/agent-a/worker",
		"new first pod/agent-a/one", "new first pod/agent-b/one")

	s.replace([]record{podIn("agent-a", "two", "5", corev1.PodRunning)}, pods.holds, false)
	s.tells(t, "gone pod/agent-a/one", "gone pod/agent-b/one", "new pod/agent-a/two")
	f := s.facts("agent-a")
	if len(f.pods) != 1 || f.pods[0].name != "two" || len(f.workloads) != 2 || !f.podChanged.Equal(noon) {
		t.Errorf("facts: %+v", f)
	}
	if _, still := s.places["agent-b"]; still {
		t.Error("a namespace of which nothing is left is remembered")
	}
	s.replace(nil, deployments.holds, false)
	s.tells(t, "gone Deployment/agent-a/worker")
}

func feedOf(t *testing.T, name string) *kind {
	t.Helper()
	all := kinds()
	i := slices.IndexFunc(all, func(k kind) bool { return k.name == name })
	if i < 0 {
		t.Fatalf("no kind %s is watched", name)
	}
	return &all[i]
}

// Content may be told before its namespace; until then nothing is decided on it.
func TestNamespaceThatIsNotKnownYet(t *testing.T) {
	s := newStock()
	s.put(podIn("agent-a", "one", "1", corev1.PodRunning), true)
	if s.facts("agent-a") != nil || len(s.names()) > 0 {
		t.Error("there are facts of a namespace that has not been seen")
	}
	s.put(aNamespace("agent-a"), true)
	if f := s.facts("agent-a"); f == nil || len(f.pods) != 1 {
		t.Errorf("facts: %+v", f)
	}
	s.drop(aNamespace("agent-a"))
	if s.facts("agent-a") != nil {
		t.Error("there are facts of a namespace that has gone")
	}
}

// What a write answered is known at once, unless the namespace is another one by now.
func TestWritten(t *testing.T) {
	s := newStock()
	s.put(aNamespace("agent-a"), true)
	s.told = nil
	after := s.facts("agent-a").namespace.after(map[string]*string{phaseKey: new("x")})
	s.written(after)
	if got := s.facts("agent-a").namespace; got != after {
		t.Errorf("known is %+v", got)
	}
	other := *after
	other.uid = "another"
	s.written(&other)
	s.written(&namespace{object: object{name: "agent-unknown"}})
	if got := s.facts("agent-a").namespace; got != after || len(s.places) != 1 {
		t.Errorf("known is %+v", got)
	}
	s.tells(t)
}

// Every kind that is watched finds its record, and only its own.
func TestEveryKindHasARecord(t *testing.T) {
	for _, k := range kinds() {
		r := recordOf(k.example)
		if r == nil {
			t.Errorf("%s: no record", k.name)
			continue
		}
		for _, other := range kinds() {
			if other.holds(r) != (other.name == k.name) {
				t.Errorf("%s: holds a record of %s: %t", other.name, k.name, other.holds(r))
			}
		}
		if _, is := r.(*workload); is != k.workload {
			t.Errorf("%s: is a workload: %t", k.name, is)
		}
		if list := fmt.Sprintf("%T", k.list()); list != fmt.Sprintf("%TList", k.example) {
			t.Errorf("%s: its list is a %s", k.name, list)
		}
	}
	if recordOf(&corev1.ConfigMap{}) != nil || recordOf(runtime.Object(&corev1.Event{})) != nil {
		t.Error("there is a record of what is not watched")
	}
}

// What holds a namespace is its finalizers, of both kinds, and what the API server says of its content.
func TestHeldBy(t *testing.T) {
	o := &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "agent-a", Finalizers: []string{"example.com/mine"}},
		Spec:       corev1.NamespaceSpec{Finalizers: []corev1.FinalizerName{"kubernetes"}},
		Status: corev1.NamespaceStatus{Conditions: []corev1.NamespaceCondition{
			{Type: corev1.NamespaceFinalizersRemaining, Status: corev1.ConditionTrue, Message: "example.com/hold in 1 resource instances"},
			{Type: corev1.NamespaceContentRemaining, Status: corev1.ConditionFalse, Message: "nothing"},
		}},
	}
	if got := namespaceOf(o).heldBy; got != nil {
		t.Errorf("it is not being deleted, and held by %q", got)
	}
	o.DeletionTimestamp = &metav1.Time{Time: noon}
	want := []string{"finalizer example.com/mine", "finalizer kubernetes", "example.com/hold in 1 resource instances"}
	if n := namespaceOf(o); !slices.Equal(n.heldBy, want) || !n.deletedAt.Equal(noon) {
		t.Errorf("held by %q since %s, want %q", n.heldBy, n.deletedAt, want)
	}
}
