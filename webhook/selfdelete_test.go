package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/policy"
)

// kubelet stands for the cluster of an agent that asks to be deleted: exited says whether its exit is in the Pod's status.
type kubelet struct {
	exited atomic.Bool

	// reports receives a value when exited has changed; nil: the watch fails.
	reports chan struct{}

	// looks counts the times that facts were gathered.
	looks atomic.Int32
}

func (k *kubelet) facts() *policy.Facts {
	pod := &corev1.Pod{}
	if k.exited.Load() {
		pod.Name = "exited"
	}
	return &policy.Facts{Caller: &policy.Caller{Pod: pod}}
}

func (k *kubelet) Facts(context.Context, *policy.Request, policy.Needs, bool) (*policy.Facts, error) {
	k.looks.Add(1)
	return k.facts(), nil
}

func (k *kubelet) WatchCaller(ctx context.Context, _ *policy.Request, seen func(*policy.Facts) bool) error {
	if k.reports == nil {
		return errors.New("no watch today")
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-k.reports:
			if seen(k.facts()) {
				return nil
			}
		}
	}
}

// takes is a Breaker that says what it is told to, and counts keys.
type takes struct {
	err           error
	keys          map[string]bool
	taken, looked int
}

func (b *takes) Take(_ context.Context, key string) error {
	if b.keys == nil {
		b.keys = map[string]bool{}
	}
	b.keys[key] = true
	b.taken = len(b.keys)
	return b.err
}

func (b *takes) Closed(context.Context) error { b.looked++; return b.err }

// announced counts the announcements.
type announced struct{ n atomic.Int64 }

func (a *announced) SelfDelete(context.Context, string, *policy.SelfDelete, string) { a.n.Add(1) }

// selfDeleting is an Admission whose policy lets an agent delete itself once its exit is in the Pod's status.
func selfDeleting(k *kubelet) (*Admission, *takes, *announced, *prometheus.Registry) {
	a, registry := newTestAdmission(&fakePolicy{
		needs: policy.Needs{Caller: true},
		review: func(r *policy.Request) policy.Verdict {
			if r.Facts.Caller.Pod.Name != "exited" {
				return policy.Verdict{Profile: "fake", Denials: []policy.Violation{
					{Rule: "self-delete", Message: "not reported", Wait: policy.WaitForExit},
				}}
			}
			return policy.Verdict{Profile: "fake", SelfDelete: &policy.SelfDelete{
				Deployment: r.Old.Meta.Name, DeploymentUID: r.Old.Meta.UID, ExitCode: 42,
				Charge: r.Old.Deployment != nil && r.Old.Meta.DeletionTimestamp == nil,
			}}
		},
	})
	b, announcer := &takes{}, &announced{}
	a.Facts, a.Callers, a.Breaker, a.Announcer = k, k, b, announcer
	return a, b, announcer, registry
}

// deletion is the DELETE of a Deployment.
func deletion(t testing.TB, uid types.UID) *admissionv1.AdmissionRequest {
	t.Helper()
	r := newRequest(t)
	d := newDeployment()
	d.UID = uid
	r.Operation, r.Object, r.OldObject = admissionv1.Delete, runtime.RawExtension{}, raw(t, d)
	r.Options = raw(t, &metav1.DeleteOptions{})
	return r
}

func TestHold(t *testing.T) {
	for _, tt := range []struct {
		name    string
		timeout time.Duration // of the request
		reports bool          // something that changes nothing, after a second
		exits   time.Duration // zero: never
		stops   time.Duration // zero: never
		code    int32         // zero: accepted
		after   time.Duration
	}{
		{name: "reported in time", exits: 700 * time.Millisecond, after: 700 * time.Millisecond},
		{name: "reported in time, after something else", reports: true, exits: 1500 * time.Millisecond, after: 1500 * time.Millisecond},
		{name: "reported too late", exits: 3 * time.Second, code: 409, after: 2 * time.Second},
		{name: "the API server is in a hurry", timeout: time.Second, code: 409, after: 500 * time.Millisecond},
		{name: "the API server is in too great a hurry", timeout: 100 * time.Millisecond, code: 409},
		{name: "the server stops", stops: 300 * time.Millisecond, code: 409, after: 300 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &kubelet{reports: make(chan struct{}, 1)}
				a, b, _, registry := selfDeleting(k)
				ctx, cancel := context.WithTimeout(t.Context(), cmp.Or(tt.timeout, 4500*time.Millisecond))
				defer cancel()
				if tt.reports {
					time.AfterFunc(time.Second, func() { k.reports <- struct{}{} })
				}
				if tt.exits > 0 {
					time.AfterFunc(tt.exits, func() { k.exited.Store(true); k.reports <- struct{}{} })
				}
				if tt.stops > 0 {
					time.AfterFunc(tt.stops, a.StopHolding)
				}
				start := time.Now()
				out, err := a.Validate(ctx, nil, reviewOf(t, deletion(t, "d")))
				must(t, err)
				got := parseAnswer(t, out)
				if took := time.Since(start); took != tt.after {
					t.Errorf("answered after %s, want %s", took, tt.after)
				}
				if got.Allowed != (tt.code == 0) {
					t.Fatalf("allowed %v: %+v", got.Allowed, got.Result)
				}
				if tt.code == 0 {
					if k.looks.Load() != 2 || b.taken != 1 {
						t.Errorf("facts gathered %d times, charged %d times; want 2, 1", k.looks.Load(), b.taken)
					}
					return
				}
				if got.Result.Code != tt.code || got.Result.Reason != metav1.StatusReasonConflict || got.Result.Details == nil ||
					!strings.Contains(got.Result.Message, "not reported") || b.taken != 0 {
					t.Errorf("%+v, charged %d times", got.Result, b.taken)
				}
				if n := metric(t, registry, `agent_lifecycle_self_deletes_total{answer="not-yet"}`); n != "1" {
					t.Errorf("%q counted as not-yet", n)
				}
			})
		})
	}
}

// Agents that go wait outside the room that those have which come, and not too many of them.
func TestHeldLeaveRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kubelet{reports: make(chan struct{})}
		a, _, _, registry := selfDeleting(k)
		h := handlerOf(a, 1)
		send := func(r *admissionv1.AdmissionRequest) (code int32, took time.Duration) {
			start := time.Now()
			answer := parseAnswer(t, post(h, strings.NewReader(string(reviewOf(t, r)))).Body.Bytes())
			if answer.Allowed {
				return 200, time.Since(start)
			}
			return answer.Result.Code, time.Since(start)
		}
		defer a.StopHolding()
		for i := range maxHeld {
			go send(deletion(t, types.UID(fmt.Sprint(i))))
			synctest.Wait()
		}
		if n := metric(t, registry, "agent_lifecycle_self_deletes_held"); n != fmt.Sprint(maxHeld) {
			t.Fatalf("%s are held, want %d", n, maxHeld)
		}
		if code, took := send(deletion(t, "one more")); code != 409 || took != 0 {
			t.Errorf("one more: %d after %s, want 409 at once", code, took)
		}
		k.exited.Store(true)
		if code, took := send(deletion(t, "proven")); code != 200 || took != 0 {
			t.Errorf("one that is proven: %d after %s, want it accepted at once", code, took)
		}
		k.exited.Store(false)
		a.StopHolding()
		synctest.Wait()
		if n := metric(t, registry, "agent_lifecycle_self_deletes_held"); n != "0" {
			t.Errorf("%s are held by a server that stops", n)
		}
		if code, took := send(deletion(t, "late")); code != 409 || took != 0 {
			t.Errorf("while it stops: %d after %s, want 409 at once", code, took)
		}
	})
}

// What takes more memory than one share stands for is not kept waiting outside the limiter's bounds.
func TestLargeIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _, _, _ := selfDeleting(&kubelet{reports: make(chan struct{})})
		h := handlerOf(a, 4)
		r, d := deletion(t, "d"), newDeployment()
		d.Annotations = map[string]string{"large": strings.Repeat("x", shareBytes)}
		r.OldObject = raw(t, d)
		start := time.Now()
		got := parseAnswer(t, post(h, strings.NewReader(string(reviewOf(t, r)))).Body.Bytes())
		if got.Allowed || got.Result.Code != 409 || time.Since(start) != 0 {
			t.Errorf("%+v after %s, want 409 at once", got.Result, time.Since(start))
		}
	})
}

func TestWatchFails(t *testing.T) {
	a, _, _, registry := selfDeleting(&kubelet{})
	got := validateRequest(t, a, deletion(t, "d"))
	if got.Allowed || got.Result.Code != 500 || !strings.Contains(got.Result.Message, "no watch today") {
		t.Errorf("allowed %v, %+v; want a fault", got.Allowed, got.Result)
	}
	if n := metric(t, registry, `agent_lifecycle_admission_faults_total{reason="facts"}`); n != "1" {
		t.Errorf("%q faults", n)
	}
}

// The breaker is asked last, once for each Deployment, and never for nothing.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &kubelet{}
		k.exited.Store(true)
		a, b, announcer, _ := selfDeleting(k)
		steps := []struct {
			name          string
			request       *admissionv1.AdmissionRequest
			after         time.Duration
			taken, looked int
			spoke         int64
		}{
			{"dry run", deletionWith(t, "a", func(r *admissionv1.AdmissionRequest) { r.DryRun = new(true) }), 0, 0, 0, 0},
			{"first", deletion(t, "a"), 0, 1, 0, 1},
			{"asked again by the API server", deletion(t, "a"), 0, 1, 0, 2},
			{"another", deletion(t, "b"), 0, 2, 0, 3},
			{"being deleted already", deletionWith(t, "c", func(r *admissionv1.AdmissionRequest) {
				d := newDeployment()
				d.UID, d.DeletionTimestamp = "c", &metav1.Time{Time: time.Now()}
				r.OldObject = raw(t, d)
			}), 0, 2, 0, 3},
			{"a claim", claimDeletion(t), 0, 2, 1, 3},
		}
		for _, s := range steps {
			time.Sleep(s.after)
			got := validateRequest(t, a, s.request)
			if !got.Allowed || b.taken != s.taken || b.looked != s.looked || announcer.n.Load() != s.spoke {
				t.Errorf("%s: allowed %v, taken %d, looked %d, announced %d; want %d, %d, %d", s.name, got.Allowed, b.taken, b.looked,
					announcer.n.Load(), s.taken, s.looked, s.spoke)
			}
			if !strings.Contains(got.AuditAnnotations["self-delete"], "exit code 42") || got.AuditAnnotations["policy"] != "abc" {
				t.Errorf("%s: audit annotations %v", s.name, got.AuditAnnotations)
			}
		}
	})
}

func TestBreakerSaysNo(t *testing.T) {
	for name, tt := range map[string]struct {
		err     error
		code    int32
		retry   int32
		message string
		series  string
	}{
		"open": {
			&breaker.OpenError{Reason: "too many"}, 429, 30, "kubectl agents breaker release",
			`agent_lifecycle_self_deletes_total{answer="breaker-open"}`,
		},
		"unreadable": {errors.New("no ConfigMap"), 500, 0, "no ConfigMap", `agent_lifecycle_admission_faults_total{reason="breaker"}`},
	} {
		t.Run(name, func(t *testing.T) {
			for what, request := range map[string]*admissionv1.AdmissionRequest{
				"Deployment": deletion(t, "d"), "claim": claimDeletion(t),
			} {
				k := &kubelet{}
				k.exited.Store(true)
				a, b, announcer, registry := selfDeleting(k)
				b.err = tt.err
				got := validateRequest(t, a, request)
				if got.Allowed || got.Result.Code != tt.code || !strings.Contains(got.Result.Message, tt.message) || announcer.n.Load() != 0 {
					t.Fatalf("%s: allowed %v, announced %d, %+v", what, got.Allowed, announcer.n.Load(), got.Result)
				}
				if tt.retry > 0 && (got.Result.Details == nil || got.Result.Details.RetryAfterSeconds != tt.retry) {
					t.Errorf("%s: details %+v", what, got.Result.Details)
				}
				if got.AuditAnnotations["self-delete"] != "" {
					t.Errorf("%s: the audit log says that it was deleted", what)
				}
				if n := metric(t, registry, tt.series); n != "1" {
					t.Errorf("%s: %s is %q", what, tt.series, n)
				}
			}
		})
	}
}

// Refusals of agents are counted as such, and the gateway's are not.
func TestRefusalsAreCounted(t *testing.T) {
	rule := "gateway"
	a, registry := newTestAdmission(&fakePolicy{review: func(*policy.Request) policy.Verdict {
		return policy.Verdict{Denials: []policy.Violation{{Rule: rule, Message: "no"}}}
	}})
	for _, rule = range []string{"gateway", selfDeleteRule} {
		if got := validateRequest(t, a, deletion(t, "d")); got.Allowed || got.Result.Code != 403 {
			t.Errorf("%+v", got.Result)
		}
	}
	if n := metric(t, registry, `agent_lifecycle_self_deletes_total{answer="refused"}`); n != "1" {
		t.Errorf("%s refusals, want 1", n)
	}
	if !slices.ContainsFunc(policy.Rules(), func(r policy.Rule) bool { return r.ID == selfDeleteRule }) {
		t.Errorf("the policy has no rule %q", selfDeleteRule)
	}
}

// What a verdict on a deletion is told of the request.
func TestDeletionRequest(t *testing.T) {
	var seen *policy.Request
	a, _ := newTestAdmission(&fakePolicy{review: func(r *policy.Request) policy.Verdict {
		seen = r
		return policy.Verdict{}
	}})
	r := deletion(t, "d")
	r.Name = ""
	r.Options = raw(t, map[string]any{"propagationPolicy": "Orphan", "newer": "than us"})
	if got := validateRequest(t, a, r); !got.Allowed {
		t.Fatal(got.Result)
	}
	if seen.Name != "" || seen.Object != nil || seen.Old == nil || seen.Old.Meta.Name != "a" || seen.Deletion == nil ||
		seen.Deletion.PropagationPolicy == nil || *seen.Deletion.PropagationPolicy != metav1.DeletePropagationOrphan {
		t.Errorf("got %+v with %+v", seen, seen.Deletion)
	}
	for _, options := range []runtime.RawExtension{{}, {Raw: []byte("null")}} {
		r.Options = options
		if got := validateRequest(t, a, r); !got.Allowed || seen.Deletion == nil {
			t.Errorf("options %s: %+v, %+v", options.Raw, got.Result, seen.Deletion)
		}
	}
	r.Options = raw(t, map[string]any{"propagationPolicy": 1})
	if got := validateRequest(t, a, r); got.Allowed || got.Result.Code != 500 || !strings.Contains(got.Result.Message, "options") {
		t.Errorf("options that are none: %+v", got.Result)
	}
	r.Options, r.OldObject = runtime.RawExtension{}, runtime.RawExtension{}
	if got := validateRequest(t, a, r); got.Allowed || !strings.Contains(got.Result.Message, "without an oldObject") {
		t.Errorf("nothing to delete: %+v", got.Result)
	}
}

func deletionWith(t testing.TB, uid types.UID, change func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionRequest {
	t.Helper()
	r := deletion(t, uid)
	change(r)
	return r
}

func claimDeletion(t testing.TB) *admissionv1.AdmissionRequest {
	t.Helper()
	return deletionWith(t, "", func(r *admissionv1.AdmissionRequest) {
		r.Kind, r.Resource = metav1.GroupVersionKind(claimKind), metav1.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}
		r.OldObject = raw(t, newClaim("data"))
	})
}
