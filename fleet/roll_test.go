package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// fakeAPI answers for an API server where two of its webhook's servers disagree, or where something in its way refuses: neither can be had
// at will on a real one. What it stores it makes ready at once.
type fakeAPI struct {
	mu     sync.Mutex
	agents map[string]*appsv1.Deployment

	// patched returns what a change makes of an agent, or why it is refused.
	patched func(dryRun bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status)

	// mayPatch is what the caller is told of his rights.
	mayPatch bool

	writes []string // annotation of each
}

func (a *fakeAPI) connect(t *testing.T) *Cluster {
	t.Helper()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	c, err := Connect(&rest.Config{Host: server.URL, QPS: -1}, "s")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *fakeAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	answer := func(o any) { _ = json.NewEncoder(w).Encode(o) }
	_, name, _ := strings.Cut(r.URL.Path, "/deployments/")
	switch {
	case r.Method == http.MethodPost:
		answer(map[string]any{
			"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "status": map[string]any{"allowed": a.mayPatch},
		})
	case r.Method == http.MethodPatch:
		dryRun := r.URL.Query().Get("dryRun") != ""
		var body appsv1.Deployment
		_ = json.NewDecoder(r.Body).Decode(&body)
		d, refused := a.patched(dryRun, a.agents[name].DeepCopy())
		if refused != nil {
			w.WriteHeader(int(refused.Code))
			answer(refused)
			return
		}
		when := body.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt]
		askAnew(d, when)
		if !dryRun {
			a.agents[name] = d
			a.writes = append(a.writes, when)
		}
		answer(d)
	case name != "":
		answer(a.agents[name])
	case strings.HasSuffix(r.URL.Path, "/deployments"):
		list := appsv1.DeploymentList{}
		for _, d := range a.agents {
			list.Items = append(list.Items, *d)
		}
		answer(list)
	case strings.HasSuffix(r.URL.Path, "/namespaces"):
		answer(metav1.PartialObjectMetadataList{Items: []metav1.PartialObjectMetadata{{ObjectMeta: metav1.ObjectMeta{Name: namespace}}}})
	case strings.HasSuffix(r.URL.Path, "/pods"):
		answer(corev1.PodList{})
	default:
		answer(corev1.Namespace{})
	}
}

// well makes a Deployment one that is ready.
func well(d *appsv1.Deployment) *appsv1.Deployment {
	d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
	d.ResourceVersion = "1"
	d.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "alice"}}
	d.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1}
	return d
}

func injectedBy(j *Judge, d *appsv1.Deployment) *appsv1.Deployment {
	injected, _ := j.Renewed(namespace, d)
	return injected
}

// say runs a Roll and returns what it says.
func (a *fakeAPI) roll(t *testing.T, j *Judge, mode Mode, changes ...func(*Roll)) (said string, tally Tally, err error) {
	t.Helper()
	r := &Roll{
		Cluster: a.connect(t), Judge: j, Mode: mode, ReadyWithin: 2 * time.Second, Now: time.Now, Say: func(s Step) { said += s.String() },
	}
	for _, change := range changes {
		change(r)
	}
	tally, err = r.Run(t.Context())
	return said, tally, err
}

func newerSidecar(t *testing.T) *Judge {
	t.Helper()
	return judgeBy(t, "image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0", "image: ghcr.io/dexorder/lifecycle-sidecar:v0.2.0")
}

// TestServersDisagree: an agent is not said to have what a server that is behind did not put in.
func TestServersDisagree(t *testing.T) {
	older, newer := judgeBy(t), newerSidecar(t)
	t.Run("at the write", func(t *testing.T) {
		a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": well(injectedBy(older, plain(good)))}}
		a.patched = func(dryRun bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) {
			if dryRun {
				return injectedBy(newer, d), nil
			}
			return d, nil
		}
		said, tally, err := a.roll(t, newer, Upgrade)
		if !errors.Is(err, ErrNotInjected) || !strings.Contains(err.Error(), "agent dexorder-agents/alice: ") || len(tally) > 0 || said != "" {
			t.Errorf("%q, %v, %v", said, tally, err)
		}
	})
	t.Run("about settings alone", func(t *testing.T) {
		settings := judgeBy(t, "memory: 32Mi", "memory: 48Mi")
		a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": well(injectedBy(older, plain(good)))}}
		a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) { return d, nil }
		if said, tally, err := a.roll(t, settings, Upgrade); !errors.Is(err, ErrNotInjected) || len(a.writes) > 0 {
			t.Errorf("%q, %v, %v, %d writes", said, tally, err, len(a.writes))
		}
	})
}

// TestRulesDropped: where the API server drops restart rules, agents without them have what is injected today.
func TestRulesDropped(t *testing.T) {
	j := judgeBy(t)
	without := j.withoutRestartRules()
	a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": well(injectedBy(without, plain(good)))}}
	a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) {
		return injectedBy(without, d), nil
	}
	said, tally, err := a.roll(t, j, Upgrade)
	if err != nil || said != "" || len(tally) > 0 || len(a.writes) > 0 {
		t.Errorf("%q, %v, %v, %d writes", said, tally, err, len(a.writes))
	}
}

// TestRefusals: what refuses one agent does not keep others from being adopted; what refuses the caller does.
func TestRefusals(t *testing.T) {
	status := func(err *apierrors.StatusError) *metav1.Status {
		s := err.ErrStatus
		s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		return &s
	}
	resource := appsv1.Resource("deployments")
	j := judgeBy(t)
	for _, tc := range []struct {
		name     string
		refused  *metav1.Status
		mayPatch bool
		step     bool
	}{
		{"a webhook without a code", status(apierrors.NewBadRequest(`admission webhook "w" denied the request: no latest tag`)), true, true},
		{"an admission policy", status(apierrors.NewForbidden(resource, "alice", errors.New(`ValidatingAdmissionPolicy "p" denied request: no`))), true, true},
		{"validation", status(apierrors.NewInvalid(appsv1.SchemeGroupVersion.WithKind("Deployment").GroupKind(), "alice", nil)), true, true},
		{"no right", status(apierrors.NewForbidden(resource, "alice", errors.New("cannot patch"))), false, false},
		{"nobody knows the caller", status(apierrors.NewUnauthorized("who are you")), true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bob := well(plain(good))
			bob.Name = "bob"
			a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": well(plain(good)), "bob": bob}, mayPatch: tc.mayPatch}
			a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) {
				if d.Name == "alice" {
					return nil, tc.refused
				}
				return injectedBy(j, d), nil
			}
			said, tally, err := a.roll(t, j, Adopt)
			if tc.step && (err != nil || tally[Refused] != 1 || tally[Renewed] != 1 || !strings.Contains(said, "alice: refused: ")) {
				t.Errorf("%q, %v, %v, want alice refused and bob done", said, tally, err)
			}
			if !tc.step && (err == nil || tally[Refused] > 0) {
				t.Errorf("%q, %v, %v, want an error", said, tally, err)
			}
		})
	}
}

// TestLongName: a name that no label can hold, where the rule that would refuse it only warns.
func TestLongName(t *testing.T) {
	j := judgeBy(t, "      identity:\n        enforcement: enforce", "      identity:\n        enforcement: warn")
	long := well(plain(good))
	long.Name = strings.Repeat("a", 64)
	a := &fakeAPI{agents: map[string]*appsv1.Deployment{long.Name: long, "bob": well(plain(good, func(d *appsv1.Deployment) { d.Name = "bob" }))}}
	a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) { return injectedBy(j, d), nil }
	said, tally, err := a.roll(t, j, Adopt)
	if err != nil || tally[Refused] != 1 || tally[Renewed] != 1 || !strings.Contains(said, "has 64 characters; accepted are at most 63") {
		t.Errorf("%q, %v, %v", said, tally, err)
	}
}

// TestPaced: whoever is restarted after a wait is looked at anew, so that nothing is as old as the wait.
func TestPaced(t *testing.T) {
	j := judgeBy(t)
	a := &fakeAPI{agents: map[string]*appsv1.Deployment{}}
	for i := range 3 {
		name := fmt.Sprintf("agent-%d", i)
		a.agents[name] = well(plain(good, func(d *appsv1.Deployment) { d.Name = name }))
	}
	a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) { return injectedBy(j, d), nil }
	const every = 300 * time.Millisecond
	for _, atOnce := range []int{1, 3} {
		a.writes = nil
		for name := range a.agents {
			a.agents[name] = well(plain(good, func(d *appsv1.Deployment) { d.Name = name }))
		}
		_, tally, err := a.roll(t, j, Adopt, func(r *Roll) { r.Every, r.MaxUnavailable = every, atOnce })
		if err != nil || tally[Renewed] != 3 {
			t.Fatalf("%v, %v", tally, err)
		}
		var last time.Time
		for _, when := range a.writes { // what a restart is asked for by is as old as the dry run before it
			at, err := time.Parse(time.RFC3339Nano, when)
			if err != nil {
				t.Fatal(err)
			}
			if at.Sub(last) < every {
				t.Errorf("%d at once: asked for at %v", atOnce, a.writes)
			}
			last = at
		}
	}
}

func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Roll{Every: time.Minute, Now: time.Now}
		begin := time.Now()
		for i := range 3 {
			if waited, err := r.turn(t.Context()); err != nil || waited != (i > 0) {
				t.Errorf("turn %d: %t, %v", i, waited, err)
			}
			if passed := time.Since(begin); passed != time.Duration(i)*time.Minute {
				t.Errorf("turn %d comes after %s", i, passed)
			}
			if !r.take() || r.take() {
				t.Errorf("turn %d cannot be taken once", i)
			}
		}
	})
}

// TestAtOnce: no more agents are on their way up than it is said, and one that does not come up is the last.
func TestAtOnce(t *testing.T) {
	j := judgeBy(t)
	for _, atOnce := range []int{1, 3} {
		a := &fakeAPI{agents: map[string]*appsv1.Deployment{}}
		for i := range 9 {
			name := fmt.Sprintf("agent-%d", i)
			a.agents[name] = well(plain(good, func(d *appsv1.Deployment) { d.Name = name }))
		}
		a.patched = func(_ bool, d *appsv1.Deployment) (*appsv1.Deployment, *metav1.Status) {
			d = injectedBy(j, d)
			d.Status.ReadyReplicas = 0
			return d, nil
		}
		said, tally, err := a.roll(t, j, Adopt, func(r *Roll) { r.MaxUnavailable, r.ReadyWithin = atOnce, 100*time.Millisecond })
		if err != nil || tally[Failed] != atOnce || len(tally) != 1 || len(a.writes) != atOnce {
			t.Errorf("%d at once: %d restarted, %v, %v\n%s", atOnce, len(a.writes), tally, err, said)
		}
	}
}

// TestLeftUnready: an agent that a run has left unready ends later runs, too, unless it is skipped.
func TestLeftUnready(t *testing.T) {
	j := judgeBy(t)
	left := well(injectedBy(j, plain(good)))
	askAnew(left, renewalTime(time.Now().Add(-time.Hour)))
	left.Status.ReadyReplicas = 0
	a := &fakeAPI{agents: map[string]*appsv1.Deployment{"alice": left}}
	said, tally, err := a.roll(t, j, Upgrade)
	if err != nil || tally[Failed] != 1 || !strings.Contains(said, "an earlier run has restarted it, and it has not been ready since") || !strings.Contains(said, "--skip-failed") {
		t.Errorf("%q, %v, %v", said, tally, err)
	}
	if said, tally, err = a.roll(t, j, Upgrade, func(r *Roll) { r.SkipFailed = true }); err != nil || tally[LeftOut] != 1 || tally[Failed] != 0 {
		t.Errorf("skipped: %q, %v, %v", said, tally, err)
	}
}

// TestListAsksAtOnce: agents in namespaces of their own are asked at once, too, and listed in order.
func TestListAsksAtOnce(t *testing.T) {
	const agents = 8
	var asked atomic.Int32
	all := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		var answer any
		switch {
		case strings.Contains(r.URL.Path, "/proxy/"):
			if asked.Add(1) == agents {
				close(all)
			}
			select {
			case <-all:
			case <-time.After(10 * time.Second):
				t.Errorf("%d are asked at once, want %d", asked.Load(), agents)
			}
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case strings.HasSuffix(r.URL.Path, "/persistentvolumeclaims"):
			answer = metav1.PartialObjectMetadataList{}
		case strings.HasSuffix(r.URL.Path, "/horizontalpodautoscalers"): // which the caller has no right to
			w.WriteHeader(http.StatusForbidden)
			answer = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden}
		case strings.HasSuffix(r.URL.Path, "/namespaces"):
			list := metav1.PartialObjectMetadataList{}
			for i := range agents {
				list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("agent-%d", i)}})
			}
			answer = list
		case strings.HasSuffix(r.URL.Path, "/deployments"):
			list := appsv1.DeploymentList{}
			for i := range agents {
				d := well(plain(good))
				d.Namespace = fmt.Sprintf("agent-%d", i)
				list.Items = append(list.Items, *d)
			}
			elsewhere := well(plain(good))
			elsewhere.Namespace = "default"
			list.Items = append(list.Items, *elsewhere)
			answer = list
		default:
			answer = corev1.PodList{Items: []corev1.Pod{runningPod("x", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})}}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer server.Close()
	c, err := Connect(&rest.Config{Host: server.URL, QPS: -1}, "s")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	lister := &Lister{Cluster: c, Judge: judgeBy(t), Now: time.Now}
	unread, err := lister.List(t.Context(), func(e Entry) error { got = append(got, e.Namespace); return nil })
	if want := "agent-0 agent-1 agent-2 agent-3 agent-4 agent-5 agent-6 agent-7"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%q, %v", got, err)
	}
	if len(unread) != 1 || !strings.HasPrefix(unread[0], "which autoscalers there are is not shown: ") {
		t.Errorf("not read: %q", unread)
	}
}

func TestErrorsThatPass(t *testing.T) {
	resource := appsv1.Resource("deployments")
	for _, tc := range []struct {
		err             error
		passes, refusal bool
	}{
		{apierrors.NewInternalError(errors.New("failed calling webhook")), true, false},
		{apierrors.NewTooManyRequests("slow down", 1), true, false},
		{apierrors.NewServiceUnavailable("starting"), true, false},
		{apierrors.NewTimeoutError("late", 1), true, false},
		{apierrors.NewNotFound(resource, "alice"), false, false},
		{apierrors.NewConflict(resource, "alice", errors.New("changed")), false, false},
		{apierrors.NewUnauthorized("who"), false, false},
		{apierrors.NewBadRequest("denied"), false, true},
		{apierrors.NewForbidden(resource, "alice", errors.New("no")), false, true},
		{errors.New("x509: certificate has expired"), false, false},
	} {
		err := fmt.Errorf("wrapped: %w", tc.err)
		if passes(err) != tc.passes || isRefusal(err) != tc.refusal {
			t.Errorf("%v: passes %t, refusal %t", tc.err, passes(err), isRefusal(err))
		}
	}
}
