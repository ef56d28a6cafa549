package integration

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// running runs a reaper until the returned function is called.
func (r *reaping) running(t *testing.T, identity string, changes ...func(*reaper.Options)) (stop func()) {
	t.Helper()
	named := func(o *reaper.Options) { o.Identity = identity }
	made := r.reaper(t, append(changes, named)...)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- made.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("%s: %v", identity, err)
			}
		case <-time.After(20 * time.Second):
			t.Errorf("%s has not ended within 20 s", identity)
		}
	}
}

// testLoop follows reapers that run: there is one Lease in a cluster, so that one part comes after the other.
func testLoop(t *testing.T, r *reaping) {
	t.Run("taken back between passes", func(t *testing.T) { testTakenBack(t, r.newReapingOf(t, "loop-taken-back")) })
	t.Run("dry run", func(t *testing.T) { testDryLoop(t, r.newReapingOf(t, "loop-dry")) })
	t.Run("two that run", func(t *testing.T) { testTwoThatRun(t, r.newReapingOf(t, "loop-two")) })
	t.Run("cap beside what is stuck", func(t *testing.T) { testCapUnderWay(t, r.newReapingOf(t, "loop-cap")) })
	t.Run("lost Lease", func(t *testing.T) { testLostLease(t, r.newReapingOf(t, "loop-lost")) })
	t.Run("processes", func(t *testing.T) { testReapProcesses(t, r.newReapingOf(t, "loop-processes")) })
}

// Between two passes a mark goes within seconds of what speaks against it, and nothing else is decided.
func testTakenBack(t *testing.T, r *reaping) {
	const alive, protected, dead = "agent-loop-alive", "agent-loop-protected", "agent-loop-dead"
	for _, name := range []string{alive, protected, dead} {
		r.own(t, name)
	}
	p := r.barePod(t, alive, corev1.PodSucceeded)
	r.mark(t, alive, protected, dead)
	r.policy.Reaper.DryRun = true // so that the first pass leaves them as they are
	r.policy.Reaper.Interval.Duration = time.Hour
	defer r.running(t, "between")()
	eventually(t, "first pass", func() (bool, error) { return r.leads(t, "between"), nil })
	time.Sleep(2 * time.Second) // of which there is no trace
	began := time.Now()
	r.setPhase(t, p, corev1.PodRunning)
	r.annotate(t, bare(protected), lifecycle.AnnotationDoNotReap, "true")
	for _, name := range []string{alive, protected} {
		eventually(t, "end of the mark of "+name, func() (bool, error) {
			return r.namespace(t, name).Annotations[lifecycle.AnnotationReaping] == "", nil
		})
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the marks were taken back after %s", took)
	}
	if r.namespace(t, dead).Annotations[lifecycle.AnnotationReaping] == "" {
		t.Error("the mark of what is dead was taken back, too")
	}
	for _, name := range []string{alive, protected, dead} {
		r.untouched(t, name)
	}
}

// A loop that writes nothing at all takes no Lease either: the reaper that does the work goes on.
func testDryLoop(t *testing.T, r *reaping) {
	const name = "agent-loop-dry"
	r.own(t, name)
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker"}}
	label := fmt.Sprintf(`{"metadata":{"labels":{%q:"worker"}}}`, lifecycle.LabelDeployment) // whose claim would be given a user type
	if err := r.Client.Patch(t.Context(), d, client.RawPatch(types.MergePatchType, []byte(label))); err != nil {
		t.Fatal(err)
	}
	r.mark(t, name)
	r.policy.Reaper.Interval.Duration = time.Second
	var wrote, read atomic.Int32
	stop := r.running(t, "dry", func(o *reaper.Options) { o.DryRun = true },
		through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
			read.Add(1)
			if writes(request) {
				wrote.Add(1)
			}
			return next.RoundTrip(request)
		}))
	time.Sleep(4 * time.Second)
	stop()
	r.untouched(t, name)
	if wrote.Load() > 0 || read.Load() == 0 || r.leads(t, "dry") {
		t.Errorf("%d writes and %d requests; the Lease: %+v", wrote.Load(), read.Load(), r.lease(t).Spec)
	}
}

// leads says who holds the Lease.
func (r *reaping) leads(t *testing.T, identity string) bool {
	t.Helper()
	holder := r.lease(t).Spec.HolderIdentity
	return holder != nil && *holder == identity
}

func (r *reaping) lease(t *testing.T) *coordinationv1.Lease {
	t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: reaper.LeaseName}}
	if err := client.IgnoreNotFound(r.Client.Get(t.Context(), client.ObjectKeyFromObject(lease), lease)); err != nil {
		t.Fatal(err)
	}
	return lease
}

// Of two reapers one works, on watches that break all the time; a namespace goes its way, and every step is told once and in order.
func testTwoThatRun(t *testing.T, r *reaping) {
	const name = "agent-loop-life"
	r.policy.Reaper.Interval.Duration = time.Second
	var dropped atomic.Int32
	breaks := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil && watches(request) {
			time.AfterFunc(3*time.Second, func() { // the connection breaks
				dropped.Add(1)
				response.Body.Close()
			})
		}
		return response, err
	})
	defer r.running(t, "left", breaks)()
	defer r.running(t, "right", breaks)()
	r.own(t, name)
	p := r.barePod(t, name, corev1.PodRunning)
	told := func(want ...reaper.EventType) {
		t.Helper()
		eventually(t, "word of "+string(want[len(want)-1]), func() (bool, error) {
			return slices.Contains(r.heard.of(name), want[len(want)-1]), nil
		})
	}
	told(reaper.NamespaceActive)
	if err := r.Client.Delete(t.Context(), p, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	told(reaper.NamespaceIdle)
	time.Sleep(2 * time.Second)
	if got := r.heard.of(name); slices.Contains(got, reaper.NamespaceMarked) {
		t.Fatalf("told of %v", got)
	}
	r.clock.pass(61 * time.Minute)
	told(reaper.NamespaceReaped)
	r.goes(t, name)
	got := slices.DeleteFunc(r.heard.of(name), func(e reaper.EventType) bool {
		return e == reaper.NamespaceReaping || e == reaper.NamespaceStuck // by the reaper's clock it has taken an hour
	})
	// It was idle before its Pod came, if that was slow to come.
	if len(got) > 1 && got[1] == reaper.NamespaceIdle {
		got = slices.Delete(got, 1, 2)
	}
	want := []reaper.EventType{
		reaper.NamespaceCreated, reaper.NamespaceActive, reaper.NamespaceIdle, reaper.NamespaceMarked, reaper.NamespaceReaped,
	}
	if !equalTypes(got, want) {
		t.Errorf("told of %v, want %v", got, want)
	}
	if dropped.Load() == 0 {
		t.Error("no connection broke")
	}
}

// A reaper whose Lease somebody else takes stops writing within the time in which it must renew it, and waits for it again.
func testLostLease(t *testing.T, r *reaping) {
	r.policy.Reaper.Interval.Duration = time.Second
	var wrote atomic.Int32
	count := through(func(next http.RoundTripper, request *http.Request) (*http.Response, error) {
		if writes(request) && inAgents(request) {
			wrote.Add(1)
		}
		return next.RoundTrip(request)
	})
	defer r.running(t, "loser", count)()
	eventually(t, "leader", func() (bool, error) { return r.leads(t, "loser"), nil })
	r.own(t, "agent-lost-before")
	eventually(t, "first writing", func() (bool, error) { return wrote.Load() > 0, nil })

	taken := time.Now()
	steal := func() {
		eventually(t, "theft", func() (bool, error) {
			lease := r.lease(t)
			lease.Spec.HolderIdentity = ptr("thief")
			lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
			err := r.Client.Update(t.Context(), lease)
			return err == nil, err
		})
	}
	steal()
	for time.Since(taken) < 13*time.Second { // 2 s until it tries to renew it, 10 s in which it must, and a moment
		time.Sleep(time.Second)
		steal()
	}
	before := wrote.Load()
	r.own(t, "agent-lost-after")
	for range 3 {
		time.Sleep(time.Second)
		steal()
	}
	if got := wrote.Load(); got != before {
		t.Errorf("%d writes after the Lease was lost", got-before)
	}
	if len(r.namespace(t, "agent-lost-after").Annotations) > 0 {
		t.Error("somebody has looked at the namespace")
	}
	lease := r.lease(t)
	lease.Spec.HolderIdentity = ptr("")
	if err := r.Client.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	eventually(t, "work after the Lease came back", func() (bool, error) {
		return len(r.namespace(t, "agent-lost-after").Annotations) > 0, nil
	})
}

// inAgents says whether a request is about a role agent's namespace.
func inAgents(request *http.Request) bool {
	const prefix = "/api/v1/namespaces/agent-"
	return len(request.URL.Path) > len(prefix) && request.URL.Path[:len(prefix)] == prefix
}
