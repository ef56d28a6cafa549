package integration

import (
	"errors"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
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
	"github.com/dexorder/agent-lifecycle/reaper"
)

// TestForgotten shows what is deleted besides namespaces, with the rights and admission policies of the manifests. The parts share a
// cluster, one after another: each looks at its own objects alone.
func TestForgotten(t *testing.T) {
	t.Parallel()
	audit := filepath.Join(t.TempDir(), "audit.log")
	c := installWith(t, controlplane.Options{ControllerManager: true, AuditLog: audit}, "--reaper=false")
	t.Run("agents", func(t *testing.T) { testForgottenAgents(t, c) })
	t.Run("an agent without a sidecar", func(t *testing.T) { testWithoutSidecar(t, c) })
	t.Run("a Pod of another agent", func(t *testing.T) { testForgedPod(t, c) })
	t.Run("an agent that is changed meanwhile", func(t *testing.T) { testChangedMeanwhile(t, c) })
	t.Run("circuit breaker", func(t *testing.T) { testReaperBreaker(t, c) })
	t.Run("stopped by hand", func(t *testing.T) { testReapersStoppedByHand(t, c) })
	t.Run("an agent that cannot be looked after", func(t *testing.T) { testNotLookedAfter(t, c) })
	t.Run("more agents than the cap", func(t *testing.T) { testAgentCap(t, c) })
	t.Run("claims", func(t *testing.T) { testOrphanedClaims(t, c) })
	t.Run("claims of agents that come back meanwhile", func(t *testing.T) { testClaimRaces(t, c) })
	t.Run("claims without rights", func(t *testing.T) { testClaimsWithoutRights(t, c) })
	t.Run("drift", func(t *testing.T) { testDrift(t, c) })
	t.Run("leftovers", func(t *testing.T) { testLeftovers(t, c, audit) })
	t.Run("state in use", func(t *testing.T) { testStateInUse(t, c) })
	t.Run("references", func(t *testing.T) { testReferences(t, c) })
}

// liveIn creates an agent in a namespace and waits for its Pod.
func (c *cluster) liveIn(t *testing.T, namespace, name string, changes ...func(*appsv1.Deployment)) *life {
	t.Helper()
	d := agent(name, append(changes, func(d *appsv1.Deployment) { d.Namespace = namespace })...)
	c.create(t, d)
	var pods corev1.PodList
	eventually(t, "Pod of "+name, func() (bool, error) {
		err := c.Client.List(t.Context(), &pods, client.InNamespace(namespace), client.MatchingLabels{"app": name})
		if err != nil || len(pods.Items) != 1 {
			return false, err
		}
		err = c.Client.Get(t.Context(), client.ObjectKeyFromObject(d), d)
		return d.Status.ObservedGeneration == d.Generation && d.Status.UpdatedReplicas == 1, err
	})
	return &life{cluster: c, deployment: d, pod: &pods.Items[0]}
}

// deleting says whether an object is on its way out, or gone.
func (c *cluster) deleting(t *testing.T, o client.Object) bool {
	t.Helper()
	err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	return err != nil || o.GetDeletionTimestamp() != nil
}

func (c *cluster) gone(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		eventually(t, "end of "+o.GetName(), func() (bool, error) {
			err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o)
			return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
		})
	}
}

// result is what one reaper did.
func result(t *testing.T, report *reaper.Report, name string) *reaper.Result {
	t.Helper()
	for i := range report.Reapers {
		if report.Reapers[i].Reaper == name {
			return &report.Reapers[i]
		}
	}
	t.Fatalf("no %s in %+v", name, report)
	return nil
}

func annotated(key, value string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { metav1.SetMetaDataAnnotation(&d.ObjectMeta, key, value) }
}

func testForgottenAgents(t *testing.T, c *cluster) {
	r := c.newReaping(t)
	forgotten, lately := c.live(t, "forgotten"), c.live(t, "lately", ofType(lifecycle.Anonymous))
	service := newService("forgotten", "forgotten")
	service.OwnerReferences = []metav1.OwnerReference{ownerOf(forgotten.deployment)}
	c.create(t, service)
	forgotten.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
	lately.exited(t, lifecycle.ExitIdle, time.Now().Add(-30*time.Second))

	keptOnes := map[string]*life{}
	for name, tc := range map[string]struct {
		deployment func(*appsv1.Deployment)
		status     func(*corev1.PodStatus, *corev1.ContainerStatus)
	}{
		"enterprise": {ofType(lifecycle.Enterprise), func(*corev1.PodStatus, *corev1.ContainerStatus) {}},
		"protected":  {annotated(lifecycle.AnnotationDoNotReap, "true"), func(*corev1.PodStatus, *corev1.ContainerStatus) {}},
		"young": {func(*appsv1.Deployment) {}, func(_ *corev1.PodStatus, s *corev1.ContainerStatus) {
			s.State.Terminated.StartedAt = metav1.NewTime(s.State.Terminated.FinishedAt.Add(-5 * time.Second))
		}},
		"again": {func(*appsv1.Deployment) {}, func(_ *corev1.PodStatus, s *corev1.ContainerStatus) {
			s.LastTerminationState, s.RestartCount = s.State, 1
			s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: s.State.Terminated.FinishedAt}}
		}},
		"killed":  {func(*appsv1.Deployment) {}, func(_ *corev1.PodStatus, s *corev1.ContainerStatus) { s.State.Terminated.Signal = 9 }},
		"crashed": {func(*appsv1.Deployment) {}, func(_ *corev1.PodStatus, s *corev1.ContainerStatus) { s.State.Terminated.ExitCode = 1 }},
	} {
		keptOnes[name] = c.live(t, "kept-"+name, tc.deployment)
		keptOnes[name].reported(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour), tc.status)
	}

	agents := result(t, r.once(t), "agents")
	if agents.Reaped != 1 || agents.Candidates != 1 || agents.Error != "" {
		t.Errorf("report: %+v", agents)
	}
	var sets appsv1.ReplicaSetList
	c.gone(t, forgotten.deployment, forgotten.pod, service)
	if err := c.Client.List(t.Context(), &sets, client.InNamespace(forgotten.pod.Namespace), client.MatchingLabels{"app": "forgotten"}); err != nil || len(sets.Items) > 0 {
		t.Errorf("%d ReplicaSets are left, %v", len(sets.Items), err)
	}
	if got := r.heard.of("forgotten"); !slices.Contains(got, reaper.AgentReaped) { // that it has gone may be heard by now, too
		t.Errorf("told of %v, want %s", got, reaper.AgentReaped)
	}
	if c.deleting(t, lately.deployment) {
		t.Error("the sidecar had no time to ask for the deletion")
	}
	r.clock.pass(2 * time.Minute)
	if got := verdict(r.once(t), "Deployment", "lately"); got != "deleted" {
		t.Errorf("after two minutes: %q", got)
	}
	c.gone(t, lately.deployment)
	for name, l := range keptOnes {
		if c.deleting(t, l.deployment) {
			t.Errorf("%s: was deleted", name)
		}
		if err := c.Client.Delete(t.Context(), l.deployment); err != nil { // the cap of later tests counts them
			t.Error(err)
		}
	}
}

// elsewhere makes a namespace that the webhook does not see and the reaper does, which may delete there: for what admission would not
// let be made.
func (r *reaping) elsewhere(t *testing.T, name string) {
	t.Helper()
	r.policy.Profiles[0].Namespaces.Names = append(r.policy.Profiles[0].Namespaces.Names, name)
	r.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	r.create(t, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: installation.SystemNamespace, Name: installation.ServerAccount}},
	})
}

// Where no sidecar asks, nobody waits for one. Role agents never go, unless their label says that they may.
func testWithoutSidecar(t *testing.T, c *cluster) {
	const role = "agent-solo"
	r := c.newReaping(t)
	r.elsewhere(t, "bare")
	c.roleNamespace(t, role)
	solo := c.liveIn(t, "bare", "solo", func(d *appsv1.Deployment) {
		metav1.SetMetaDataLabel(&d.ObjectMeta, lifecycle.LabelDeployment, d.Name)
		d.Spec.Template.Labels[lifecycle.LabelDeployment] = d.Name
	})
	stays, goes := c.liveIn(t, role, "stays"), c.liveIn(t, role, "goes", ofType(lifecycle.Free))
	for _, l := range []*life{solo, stays, goes} {
		l.exits(t, lifecycle.ExitIdle)
	}
	r.clock.pass(time.Second) // the kubelet's times are whole seconds
	if agents := result(t, r.once(t), "agents"); agents.Reaped != 1 {
		t.Errorf("report: %+v", agents)
	}
	c.gone(t, solo.deployment, solo.pod)
	r.clock.pass(2 * time.Minute)
	if got := verdict(r.once(t), "Deployment", "goes"); got != "deleted" {
		t.Errorf("verdict %q", got)
	}
	c.gone(t, goes.deployment, goes.pod)
	if c.deleting(t, stays.deployment) {
		t.Error("a role agent was deleted whose label does not say that it may be")
	}
}

// What a label says of a Pod is not whose Pod it is.
func testForgedPod(t *testing.T, c *cluster) {
	const elsewhere = "elsewhere"
	r := c.newReaping(t)
	r.elsewhere(t, elsewhere)
	victim := agent("victim", func(d *appsv1.Deployment) {
		d.Namespace, d.Spec.Replicas = elsewhere, ptr(int32(0))
		metav1.SetMetaDataLabel(&d.ObjectMeta, lifecycle.LabelDeployment, "victim")
	})
	c.create(t, victim)
	eventually(t, "controller", func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(victim), victim)
		return victim.Status.ObservedGeneration == victim.Generation, err
	})
	forger := c.liveIn(t, elsewhere, "forger", func(d *appsv1.Deployment) {
		d.Spec.Template.Labels[lifecycle.LabelDeployment] = "victim"
	})
	forger.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
	report := r.once(t)
	if got := verdict(report, "Deployment", "victim"); got != "kept" || c.deleting(t, victim) {
		t.Errorf("verdict %q: %+v", got, result(t, report, "agents"))
	}
	if err := c.Client.Delete(t.Context(), forger.deployment); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Delete(t.Context(), victim); err != nil {
		t.Fatal(err)
	}
}

// before calls f before the first request of a method whose path ends so is sent.
func before(method, path string, f func()) func(*reaper.Options) {
	done := false
	return func(o *reaper.Options) {
		o.Config = rest.CopyConfig(o.Config)
		o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				if r.Method == method && strings.HasSuffix(r.URL.Path, path) && !done {
					done = true
					f()
				}
				return next.RoundTrip(r)
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// What is applied to an agent between the look and the deletion is not lost.
func testChangedMeanwhile(t *testing.T, c *cluster) {
	for _, tc := range []struct{ name, method, patch string }{
		{"new-image", http.MethodGet, `{"spec":{"template":{"spec":{"containers":[{"name":"agent","image":"ghcr.io/dexorder/agent:v2"}]}}}}`},
		{"new-note", http.MethodDelete, `{"metadata":{"annotations":{"note":"x"}}}`},
		{"now-protected", http.MethodGet, `{"metadata":{"annotations":{"do-not-reap":"true"}}}`},
	} {
		l := c.live(t, tc.name)
		l.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
		report := c.newReaping(t).once(t, before(tc.method, "/deployments/"+tc.name, func() {
			if err := c.Client.Patch(t.Context(), l.deployment, client.RawPatch(types.StrategicMergePatchType, []byte(tc.patch))); err != nil {
				t.Error(err)
			}
		}))
		if got := verdict(report, "Deployment", tc.name); got != "kept" || c.deleting(t, l.deployment) {
			t.Errorf("%s: verdict %q: %+v", tc.name, got, result(t, report, "agents"))
		}
		if err := c.Client.Delete(t.Context(), l.deployment); err != nil {
			t.Error(err)
		}
		c.gone(t, l.deployment)
	}
}

// The circuit breaker is the one that self-deletes share.
func testReaperBreaker(t *testing.T, c *cluster) {
	r := c.newReaping(t)
	core, err := clientcorev1.NewForConfig(r.config)
	if err != nil {
		t.Fatal(err)
	}
	shared := func(o *reaper.Options) {
		o.Breaker = breaker.New(breaker.Options{
			ConfigMaps: core.ConfigMaps(installation.SystemNamespace), Now: time.Now, Logger: o.Logger,
			Limits:  func() breaker.Limits { return breaker.Limits{Burst: 1, PerMinute: 1} },
			Metrics: breaker.NewMetrics(prometheus.NewRegistry()),
		})
	}
	lives := []*life{c.live(t, "burst-a"), c.live(t, "burst-b")}
	for _, l := range lives {
		l.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
	}
	agents := result(t, r.once(t, shared), "agents")
	if agents.Reaped != 1 || agents.Error != "" || !c.breaker(t).Open {
		t.Errorf("report: %+v, breaker: %+v; want one deleted, then open", agents, c.breaker(t))
	}
	if agents = result(t, r.once(t, shared), "agents"); agents.Reaped != 0 {
		t.Errorf("report: %+v", agents)
	}
	for _, d := range agents.Decisions {
		if strings.HasPrefix(d.Name, "burst") && (d.Verdict != "kept" || !strings.Contains(d.Reason, "kubectl agents breaker release")) {
			t.Errorf("decision: %+v", d)
		}
	}
	if _, _, err := breaker.Release(t.Context(), c.breakers(t), "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	if agents = result(t, r.once(t, shared), "agents"); agents.Reaped != 1 {
		t.Errorf("after the release: %+v", agents)
	}
	c.gone(t, lives[0].deployment, lives[1].deployment)
}

// What one pass could not do for an agent is said by its report and its exit code: nobody tries again.
func testNotLookedAfter(t *testing.T, c *cluster) {
	const name = "not-looked-after"
	service := newService(name, name)
	l := c.live(t, name)
	refusal := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
				ResourceNames: []string{name},
				RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"services"}},
				},
			}}},
			Validations: []admissionregistrationv1.Validation{{Expression: "false", Message: "nobody changes it"}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	for _, o := range []client.Object{service, refusal, binding} {
		c.create(t, o)
	}
	eventually(t, "refusal", func() (bool, error) {
		touched := service.DeepCopy()
		touched.Annotations = map[string]string{"touched": "yes"}
		err := c.Client.Update(t.Context(), touched, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "nobody changes it"), err
	})
	command := c.newReaping(t).command(t)
	policy := command.policyFile(t, "policy.yaml")
	report := command.once(t, 1, policy)
	if got := result(t, report, "agents").Error; !strings.Contains(got, "agents could not be looked after, the first: agent dexorder-agents/"+name) ||
		!strings.Contains(got, "nobody changes it") {
		t.Errorf("report: %q", got)
	}
	for _, o := range []client.Object{binding, refusal} {
		if err := c.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "a good pass", func() (bool, error) {
		code, _, stderr := command.runs(t, "--once", "--kubeconfig", command.kubeconfig, "--policy", policy)
		return code == 0, errors.New(stderr)
	})
	c.get(t, service)
	if !owns(service, l) {
		t.Errorf("the Service is owned by %v", service.OwnerReferences)
	}
	for _, o := range []client.Object{l.deployment, service} {
		if err := client.IgnoreNotFound(c.Client.Delete(t.Context(), o)); err != nil {
			t.Error(err)
		}
	}
}

func testAgentCap(t *testing.T, c *cluster) {
	r := c.newReaping(t)
	lives := []*life{c.live(t, "cap-a"), c.live(t, "cap-b")}
	for _, l := range lives {
		l.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
	}
	r.policy.Reaper.Cap.Count = 1
	agents := result(t, r.once(t), "agents")
	if !agents.CapExceeded || agents.Reaped != 0 || agents.Candidates != 2 {
		t.Errorf("report: %+v", agents)
	}
	if got := r.heard.of("agents"); len(got) != 1 || got[0] != reaper.CapExceeded {
		t.Errorf("told of %v", got)
	}
	for _, l := range lives {
		if c.deleting(t, l.deployment) {
			t.Errorf("%s was deleted", l.deployment.Name)
		}
	}
	r.policy.Reaper.Cap.Count = 2
	if agents = result(t, r.once(t), "agents"); agents.Reaped != 2 {
		t.Errorf("report: %+v", agents)
	}
	c.gone(t, lives[0].deployment, lives[1].deployment)
}
