package integration

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestSelfDelete shows what a sidecar is answered: by its real token, on the wire.
func TestSelfDelete(t *testing.T) {
	t.Parallel()
	audit := filepath.Join(t.TempDir(), "audit.log")
	c := install(t, controlplane.Options{ControllerManager: true, AuditLog: audit})
	t.Run("held until the kubelet reports the exit", func(t *testing.T) { testHeld(t, c, audit) })
	t.Run("not yet", func(t *testing.T) { testNotYet(t, c) })
	t.Run("not before a claim is safe", func(t *testing.T) { testKeptClaim(t, c) })
	t.Run("not while it is replaced", func(t *testing.T) { testReplaced(t, c) })
	t.Run("refused", func(t *testing.T) { testRefused(t, c) })
	t.Run("rights", func(t *testing.T) { testSidecarRights(t, c) })
	t.Run("dry run", func(t *testing.T) { testDryRun(t, c) })
	t.Run("apply to what is being deleted", func(t *testing.T) { testApplyWhileDeleted(t, c) })
	t.Run("claim", func(t *testing.T) { testOwnClaim(t, c) })
	t.Run("gateway", func(t *testing.T) { testGateway(t, c) })
	t.Run("stopped by hand", func(t *testing.T) { testStoppedByHand(t, c) })
	t.Run("breaker", func(t *testing.T) { testBreaker(t, c) })
	t.Run("server away", func(t *testing.T) { testSelfDeleteServerAway(t, c) })
}

func testHeld(t *testing.T, c *cluster, audit string) {
	l := c.live(t, "held")
	taken := c.breaker(t).Taken
	type answer struct {
		reply
		err error
		at  time.Time
	}
	answers := make(chan answer, 1)
	go func() {
		r, err := l.deletesItself(t.Context())
		answers <- answer{r, err, time.Now()}
	}()
	// Writing the status before the request is there would test less; the metric tells.
	eventually(t, "held request", func() (bool, error) { return c.metric("agent_lifecycle_self_deletes_held 1") })
	// As its status does when an agent ends: what was held is out of date then, and the API server asks a second time.
	note := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"note":"x"}}}`))
	if err := c.Client.Patch(t.Context(), l.deployment, note); err != nil {
		t.Fatal(err)
	}
	l.exits(t, lifecycle.ExitIdle)
	reported := time.Now()
	got := <-answers
	accepted(t, got.reply, got.err)
	t.Logf("accepted %s after the status was written", got.at.Sub(reported).Round(time.Millisecond))
	eventually(t, "end of the Deployment and its Pod", func() (bool, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(l.pod), &corev1.Pod{}); !apierrors.IsNotFound(err) {
			return false, err
		}
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(l.deployment), &appsv1.Deployment{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})

	if once, err := c.metric(`agent_lifecycle_breaker_takes_total{result="granted"} 1`); once || err != nil {
		t.Errorf("the API server did not ask again, which tests less; %v", err)
	}
	if now := c.breaker(t).Taken - taken; now < 0.5 || now > 1 {
		t.Errorf("the circuit breaker was charged %.2f times, want once (less what grew back)", now)
	}
	var found []corev1.Event
	eventually(t, "Event", func() (bool, error) {
		found = c.selfDeleteEvents(t, "held")
		return len(found) > 0, nil
	})
	for _, proof := range []string{
		string(l.deployment.UID), string(l.pod.UID), "containerd://agent", "code 42", "free",
	} {
		if !strings.Contains(found[0].Message, proof) {
			t.Errorf("the Event says %q, want %q in it", found[0].Message, proof)
		}
	}
	if len(found) != 1 {
		t.Errorf("%d Events, want 1", len(found))
	}
	if once, err := c.metric(`agent_lifecycle_self_deletes_total{answer="accepted"} 1`); !once || err != nil {
		t.Errorf("one agent went, and the metric does not say 1; %v", err)
	}
	log, err := os.ReadFile(audit)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(`"validate.lifecycle.dexorder.io/self-delete"`)) {
			if !bytes.Contains(line, []byte(l.pod.UID)) || !bytes.Contains(line, []byte("validate.lifecycle.dexorder.io/policy")) {
				t.Errorf("the audit log lacks the Pod or the policy: %s", line)
			}
			return
		}
	}
	t.Error("the audit log has no proof")
}

func testNotYet(t *testing.T, c *cluster) {
	l := c.live(t, "early")
	start := time.Now()
	got, err := l.deletesItself(t.Context())
	refused(t, got, err, http.StatusConflict, "has not reported")
	if took := time.Since(start); took < 2*time.Second {
		t.Errorf("answered after %s, want it held for 2 s", took)
	}
	if got.status.Reason != metav1.StatusReasonConflict || got.retryAfter == "" {
		t.Errorf("reason %q, Retry-After %q", got.status.Reason, got.retryAfter)
	}
}

// testKeptClaim is about a Deployment that was raised: its claim still has the owner reference by which it would go along.
func testKeptClaim(t *testing.T, c *cluster) {
	l := c.live(t, "raised", ofType(lifecycle.Paid))
	claim := newClaim("raised-data", "raised", lifecycle.Anonymous)
	claim.OwnerReferences = []metav1.OwnerReference{ownerOf(l.deployment)}
	c.create(t, claim)
	l.exits(t, lifecycle.ExitIdle)
	dry := foreground()
	dry.DryRun = []string{metav1.DryRunAll}
	// The server learns of claims by a watch.
	answers := func(code int) func() (bool, error) {
		return func() (bool, error) {
			got, err := c.deletes(t.Context(), l.sidecar, deploymentPath("raised"), dry)
			return got.code == code, err
		}
	}
	eventually(t, "refusal", answers(http.StatusConflict))
	got, err := l.deletesItself(t.Context())
	refused(t, got, err, http.StatusConflict, `claim "raised-data" is to be kept`)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"ownerReferences":null}}`))
	if err := c.Client.Patch(t.Context(), claim, patch); err != nil {
		t.Fatal(err)
	}
	// At once: a refusal is judged again by what is stored.
	got, err = l.deletesItself(t.Context())
	accepted(t, got, err)
	c.get(t, claim)
}

// testReplaced is about a rollout that begins when the agent has just ended: what was applied must not be lost.
func testReplaced(t *testing.T, c *cluster) {
	l := c.live(t, "replaced")
	l.exits(t, lifecycle.ExitIdle)
	hold := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":["example.com/hold"]}}`))
	pod := l.pod.DeepCopy()
	if err := c.as(t, "replicaset-controller").Patch(t.Context(), pod, hold); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		release := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
		if err := c.Client.Patch(context.WithoutCancel(t.Context()), pod, release); err != nil {
			t.Error(err)
		}
	})
	c.get(t, l.deployment)
	changed := l.deployment.DeepCopy()
	changed.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
	if err := c.Client.Patch(t.Context(), changed, client.MergeFrom(l.deployment)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replacement", func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(pod), pod)
		return pod.DeletionTimestamp != nil, err
	})
	got, err := l.deletesItself(t.Context())
	refused(t, got, err, http.StatusForbidden, "is being replaced")
	c.get(t, l.deployment)
	if l.deployment.DeletionTimestamp != nil {
		t.Error("the agent is being deleted")
	}
}

func testRefused(t *testing.T, c *cluster) {
	a, ab := c.live(t, "agent-a"), c.live(t, "agent-a-b")
	enterprise := c.live(t, "firm", ofType(lifecycle.Enterprise))
	crashed := c.live(t, "crashed")
	for _, l := range []*life{a, ab, enterprise} {
		l.exits(t, lifecycle.ExitIdle)
	}
	crashed.exits(t, 1)
	c.create(t, newClaim("agent-a-data", "agent-a", ""))
	c.create(t, newClaim("agent-a-b-data", "agent-a-b", ""))
	account := a.pod.Spec.ServiceAccountName
	judged := c.judged(account, a.pod, string(a.pod.UID))
	unbound := c.token(t, account, nil)
	policy := func(p metav1.DeletionPropagation) *metav1.DeleteOptions {
		return &metav1.DeleteOptions{PropagationPolicy: &p}
	}
	all := strings.TrimSuffix(deploymentPath(""), "/")
	for _, tt := range []struct {
		name    string
		as      *rest.Config
		path    string
		options *metav1.DeleteOptions
		why     string
	}{
		{"neighbour", a.sidecar, deploymentPath("firm"), foreground(), "is not of Pod"},
		{"neighbour whose name begins alike", a.sidecar, deploymentPath("agent-a-b"), foreground(), "is not of Pod"},
		{"neighbour with whose name its own begins", ab.sidecar, deploymentPath("agent-a"), foreground(), `"agent-a-b"; an agent deletes itself`},
		{"collection", judged, all, foreground(), "never as a collection"},
		{"collection of claims", judged, strings.TrimSuffix(claimPath(""), "/"), foreground(), "never as a collection"},
		{"another's claim", judged, claimPath("agent-a-b-data"), foreground(), "agent-a-b-data"},
		{"own claim that is kept", judged, claimPath("agent-a-data"), foreground(), "whose storage is kept"},
		{"orphaning", a.sidecar, deploymentPath("agent-a"), policy(metav1.DeletePropagationOrphan), "leave nothing behind"},
		//nolint:staticcheck // Deprecated, and still obeyed by the API server.
		{"orphaning, the old way", a.sidecar, deploymentPath("agent-a"), &metav1.DeleteOptions{OrphanDependents: ptr(true)}, "leave nothing behind"},
		{"unbound token", unbound, deploymentPath("agent-a"), foreground(), "bound to a Pod"},
		{"Pod of another UID", c.judged(account, a.pod, "f00d"), deploymentPath("agent-a"), foreground(), `one of UID "f00d"`},
		{"enterprise", enterprise.sidecar, deploymentPath("firm"), foreground(), "never shuts down"},
		{"crash", crashed.sidecar, deploymentPath("crashed"), foreground(), "ended with exit code 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := c.deletes(t.Context(), tt.as, tt.path, tt.options)
			refused(t, got, err, http.StatusForbidden, tt.why)
			if byWebhook := strings.Contains(got.status.Message, "admission webhook"); got.isJudged() != byWebhook {
				t.Errorf("the sidecar takes that for a judgement: %v, want %v: %+v", got.isJudged(), byWebhook, got.status)
			}
		})
	}
	for _, l := range []*life{a, ab, enterprise, crashed} {
		c.get(t, l.deployment)
		if l.deployment.DeletionTimestamp != nil {
			t.Errorf("Deployment %q is being deleted", l.deployment.Name)
		}
	}
	t.Run("token of a Pod that has gone", func(t *testing.T) {
		if err := c.Client.Delete(t.Context(), ab.pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
		got, err := ab.deletesItself(t.Context())
		// Until the API server's authenticator has noticed it is admission that refuses.
		if err != nil || got.code != http.StatusUnauthorized && got.code != http.StatusForbidden {
			t.Errorf("answered with %d %q, %v", got.code, got.status.Message, err)
		}
	})
	t.Run("own", func(t *testing.T) {
		got, err := a.deletesItself(t.Context())
		accepted(t, got, err)
	})
}

// testSidecarRights asks with a sidecar's token for what RBAC refuses already.
func testSidecarRights(t *testing.T, c *cluster) {
	l := c.live(t, "rights")
	core := "/api/v1/namespaces/" + agents
	for _, tt := range []struct{ name, method, path, contentType, body string }{
		{"patch", http.MethodPatch, deploymentPath("rights"), "application/merge-patch+json", `{"spec":{"replicas":0}}`},
		{"create", http.MethodPost, "/apis/apps/v1/namespaces/" + agents + "/deployments", "application/json", `{}`},
		{"read", http.MethodGet, deploymentPath("rights"), "application/json", `{}`},
		{"evict", http.MethodPost, core + "/pods/" + l.pod.Name + "/eviction", "application/json", `{}`},
		{"delete a Pod", http.MethodDelete, core + "/pods/" + l.pod.Name, "application/json", `{}`},
		{"delete a claim", http.MethodDelete, claimPath("rights"), "application/json", `{}`},
		{"delete all", http.MethodDelete, "/apis/apps/v1/namespaces/" + agents + "/deployments", "application/json", `{}`},
		{"token", http.MethodPost, core + "/serviceaccounts/" + l.pod.Spec.ServiceAccountName + "/token", "application/json", `{}`},
	} {
		got, err := call(t.Context(), l.sidecar, tt.method, tt.path, tt.contentType, rawJSON(tt.body))
		if err != nil || got.code != http.StatusForbidden || !strings.Contains(got.status.Message, "cannot") || got.isJudged() {
			t.Errorf("%s: answered with %d %q, %v, judged: %v; want 403 of RBAC", tt.name, got.code, got.status.Message, err, got.isJudged())
		}
	}
}

func testDryRun(t *testing.T, c *cluster) {
	l := c.live(t, "dry")
	l.exits(t, lifecycle.ExitIdle)
	before := c.breaker(t)
	options := foreground()
	options.DryRun = []string{metav1.DryRunAll}
	for range 3 {
		got, err := c.deletes(t.Context(), l.sidecar, deploymentPath("dry"), options)
		accepted(t, got, err)
	}
	if after := c.breaker(t); after.Taken > before.Taken || !after.Updated.Equal(before.Updated) {
		t.Errorf("the circuit breaker was charged: %+v, then %+v", before, after)
	}
	c.get(t, l.deployment)
	// What would write an Event writes those of real deletions in order, so that one of these would have come first.
	got, err := l.deletesItself(t.Context())
	accepted(t, got, err)
	eventually(t, "Event", func() (bool, error) { return len(c.selfDeleteEvents(t, "dry")) > 0, nil })
	if n := len(c.selfDeleteEvents(t, "dry")); n != 1 {
		t.Errorf("%d Events, want 1", n)
	}
}

func testApplyWhileDeleted(t *testing.T, c *cluster) {
	d := agent("leaving", func(d *appsv1.Deployment) { d.Finalizers = []string{"example.com/hold"} })
	c.create(t, d)
	if err := c.Client.Delete(t.Context(), d, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
	denied(t, c.apply(t, agent("leaving", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
	})), "terminating")
	c.release(t, d)
}

// testOwnClaim deletes the storage of an anonymous user, by an account that RBAC lets do that.
func testOwnClaim(t *testing.T, c *cluster) {
	l := c.live(t, "guest", ofType(lifecycle.Anonymous))
	c.create(t, newClaim("guest-data", "guest", lifecycle.Anonymous))
	c.create(t, newClaim("guest-raised", "guest", lifecycle.Paid))
	judged := c.judged(l.pod.Spec.ServiceAccountName, l.pod, string(l.pod.UID))
	l.exits(t, lifecycle.ExitIdle)
	got, err := c.deletes(t.Context(), judged, claimPath("guest-raised"), nil)
	refused(t, got, err, http.StatusForbidden, "whose storage is kept")
	got, err = c.deletes(t.Context(), judged, claimPath("guest-data"), nil)
	accepted(t, got, err)
}

func testGateway(t *testing.T, c *cluster) {
	gateway := c.gateway(t)
	d := agent("made")
	if err := gateway.Create(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	claim := newClaim("made-data", "made", "")
	if err := gateway.Create(t.Context(), claim); err != nil {
		t.Errorf("a claim: %v", err)
	}
	service := newService("made", "made")
	service.OwnerReferences = []metav1.OwnerReference{ownerOf(d)}
	if err := gateway.Create(t.Context(), service); err != nil {
		t.Errorf("a Service of its Deployment: %v", err)
	}
	owned := func(change func(*metav1.OwnerReference)) client.Object {
		s := newService("bad", "made")
		owner := ownerOf(d)
		change(&owner)
		s.OwnerReferences = []metav1.OwnerReference{owner}
		return s
	}
	denied(t, gateway.Create(t.Context(), owned(func(o *metav1.OwnerReference) { o.UID = "f00d" })), "gateway")
	denied(t, gateway.Create(t.Context(), owned(func(o *metav1.OwnerReference) { o.Kind, o.APIVersion = "ConfigMap", "v1" })), "gateway")
	finalized := newService("bad", "made")
	finalized.Finalizers = []string{"example.com/hold"}
	denied(t, gateway.Create(t.Context(), finalized), "gateway")
	patch := client.RawPatch(types.MergePatchType,
		[]byte(`{"metadata":{"ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"x","uid":"f00d"}]}}`))
	denied(t, gateway.Patch(t.Context(), claim.DeepCopy(), patch), "gateway")
	for _, o := range []client.Object{d, claim, service, c.podOf(t, "made")} {
		denied(t, gateway.Delete(t.Context(), o), "gateway")
	}
	denied(t, gateway.DeleteAllOf(t.Context(), &appsv1.Deployment{}, client.InNamespace(agents)), "gateway")
}

// testStoppedByHand: from the moment that an operator opens the breaker no agent deletes itself, and Kubernetes
// Events tell why.
func testStoppedByHand(t *testing.T, c *cluster) {
	l, again := c.live(t, "stopped"), c.live(t, "counted")
	l.exits(t, lifecycle.ExitIdle)
	again.exits(t, lifecycle.ExitIdle)
	// One that was counted before, and whose deletion did not come about, is no exception.
	judged := c.breaker(t).Counted
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: breaker.Name}}
	c.get(t, cm)
	if cm.Data == nil {
		cm.Data = map[string]string{}
	}
	cm.Data["counted"] = strings.Join(append(judged, string(again.deployment.UID)), " ")
	if err := c.Client.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	if _, _, err := breaker.Open(t.Context(), c.breakers(t), "alice", "agents of v2 stop while they work", time.Now()); err != nil {
		t.Fatal(err)
	}
	opened := time.Now()
	for _, l := range []*life{l, again} {
		got, err := l.deletesItself(t.Context())
		refused(t, got, err, http.StatusTooManyRequests, "opened by alice: agents of v2 stop while they work")
	}
	eventually(t, "metric", func() (bool, error) { return c.metric("agent_lifecycle_breaker_open 1") })
	if took := time.Since(opened); took > 5*time.Second {
		t.Errorf("known after %s", took)
	}
	if _, _, err := breaker.Release(t.Context(), c.breakers(t), "bob", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*life{l, again} {
		got, err := l.deletesItself(t.Context())
		accepted(t, got, err)
	}
	for reason, want := range map[string]string{
		"BreakerOpened": "opened by alice: agents of v2 stop while they work", "BreakerClosed": "closed by bob",
	} {
		eventually(t, "Event "+reason, func() (bool, error) {
			var list corev1.EventList
			if err := c.Client.List(t.Context(), &list, client.InNamespace(installation.SystemNamespace)); err != nil {
				return false, err
			}
			return slices.ContainsFunc(list.Items, func(e corev1.Event) bool {
				return e.Reason == reason && e.InvolvedObject.Name == breaker.Name && e.InvolvedObject.UID == cm.UID && strings.Contains(e.Message, want)
			}), nil
		})
	}
}

func testBreaker(t *testing.T, c *cluster) {
	policy, err := os.ReadFile(c.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	small := bytes.Replace(policy, []byte("burst: 60"), []byte("burst: 2"), 1)
	small = bytes.Replace(small, []byte("perMinute: 30"), []byte("perMinute: 1"), 1)
	if bytes.Equal(small, policy) {
		t.Fatal("the policy's limits are written in another form")
	}
	if err := c.WritePolicy(small); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.WritePolicy(policy); err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "small policy", func() (bool, error) { return c.metric(`agent_lifecycle_policy_reloads_total{result="ok"} 2`) })
	release := func() {
		t.Helper()
		if _, _, err := breaker.Release(t.Context(), c.breakers(t), "test", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	// What was deleted before may have left more or less than two.
	var last *life
	for i := 0; !c.breaker(t).Open; i++ {
		if i > 2 {
			t.Fatalf("%d agents were deleted and the circuit breaker has not opened", i)
		}
		last = c.live(t, fmt.Sprintf("many-%d", i))
		last.exits(t, lifecycle.ExitIdle)
		got, err := last.deletesItself(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got.code == http.StatusTooManyRequests {
			refused(t, got, nil, http.StatusTooManyRequests, "kubectl agents breaker release")
			if got.retryAfter != "30" {
				t.Errorf("Retry-After %q, want 30", got.retryAfter)
			}
		}
	}
	guest := c.live(t, "guest-too", ofType(lifecycle.Anonymous))
	guest.exits(t, lifecycle.ExitIdle)
	c.create(t, newClaim("guest-too", "guest-too", lifecycle.Anonymous))
	got, err := c.deletes(t.Context(), c.judged(guest.pod.Spec.ServiceAccountName, guest.pod, string(guest.pod.UID)),
		claimPath("guest-too"), nil)
	refused(t, got, err, http.StatusTooManyRequests, "circuit breaker")
	release()
	got, err = last.deletesItself(t.Context())
	accepted(t, got, err)
}

// testSelfDeleteServerAway shows that agents wait for the server, and that nobody else does.
func testSelfDeleteServerAway(t *testing.T, c *cluster) {
	l, other := c.live(t, "waits"), c.live(t, "dismissed")
	c.create(t, newClaim("dismissed", "dismissed", ""))
	l.exits(t, lifecycle.ExitIdle)
	for _, s := range c.Servers() {
		if err := c.RemoveServer(s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := l.deletesItself(t.Context())
	refused(t, got, err, http.StatusInternalServerError, "failed calling webhook")
	claim := newClaim("dismissed", "", "")
	c.get(t, claim)
	claim.Spec.VolumeName = "bound"
	if err := c.Client.Update(t.Context(), claim); err != nil {
		t.Errorf("binding a volume: %v", err)
	}
	for _, o := range []client.Object{claim, other.deployment} {
		if err := c.Client.Delete(t.Context(), o); err != nil {
			t.Errorf("a person deletes %T: %v", o, err)
		}
	}
	eventually(t, "end of the Pod and the claim", func() (bool, error) {
		if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(claim), &corev1.PersistentVolumeClaim{}); !apierrors.IsNotFound(err) {
			return false, err
		}
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(other.pod), &corev1.Pod{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if _, err := c.AddServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "acceptance", func() (bool, error) {
		got, err := l.deletesItself(t.Context())
		return got.code == http.StatusOK, err
	})
}

// newClaim is a claim of a user type.
func newClaim(name, agent string, userType lifecycle.UserType) *corev1.PersistentVolumeClaim {
	c := claim(name, agent)
	if userType != "" {
		c.Labels[lifecycle.LabelUserType] = string(userType)
	}
	return c
}

func newService(name, agent string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name, Labels: map[string]string{lifecycle.LabelDeployment: agent}},
		Spec:       corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Ports: []corev1.ServicePort{{Port: 80}}},
	}
}

func ownerOf(d *appsv1.Deployment) metav1.OwnerReference {
	return metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: d.UID, BlockOwnerDeletion: ptr(true),
	}
}

// rawJSON is JSON as it stands.
type rawJSON string

// MarshalJSON implements json.Marshaler.
func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

func (c *cluster) breakers(t *testing.T) breaker.ConfigMaps {
	t.Helper()
	core, err := clientcorev1.NewForConfig(c.plane.Config)
	if err != nil {
		t.Fatal(err)
	}
	return core.ConfigMaps(installation.SystemNamespace)
}

func (c *cluster) breaker(t *testing.T) breaker.State {
	t.Helper()
	state, err := breaker.Read(t.Context(), c.breakers(t))
	if err != nil {
		t.Fatal(err)
	}
	return state
}

func (c *cluster) selfDeleteEvents(t *testing.T, deployment string) []corev1.Event {
	t.Helper()
	var events corev1.EventList
	if err := c.Client.List(t.Context(), &events, client.InNamespace(agents)); err != nil {
		t.Fatal(err)
	}
	var found []corev1.Event
	for _, event := range events.Items {
		if event.Reason == "SelfDeleted" && event.InvolvedObject.Name == deployment {
			found = append(found, event)
		}
	}
	return found
}

// metric says whether the first server shows a line among its metrics.
func (c *cluster) metric(line string) (bool, error) {
	body, err := c.metrics()
	return strings.Contains(body, "\n"+line+"\n"), err
}

// metrics is what the first server shows of itself.
func (c *cluster) metrics() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Servers()[0].Health+"/metrics", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(response.Body); err != nil {
		return "", err
	}
	return body.String(), nil
}
