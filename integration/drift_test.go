package integration

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// template is what the namespace of a driver holds.
const template = `
apiVersion: v1
kind: Namespace
metadata: {labels: {org: dexorder, agent-role: driver}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lifecycle-reaper, namespace: "{namespace}"}
roleRef: {kind: ClusterRole, name: lifecycle-reaper-role-namespace, apiGroup: rbac.authorization.k8s.io}
subjects: [{kind: ServiceAccount, name: lifecycle-webhook, namespace: dexorder-system}]
---
apiVersion: v1
kind: Secret
metadata: {name: token}
data: {password: d2FudGVk}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: worker-data, labels: {lifecycle.dexorder.io/deployment: worker}}
spec: {resources: {requests: {storage: 1024Ki}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  replicas: 0
  strategy: {type: Recreate}
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      containers:
      - name: agent
        image: ghcr.io/dexorder/agent:v1
        resources: {limits: {cpu: 0.1, memory: 128Mi}}
      volumes: [{name: data, persistentVolumeClaim: {claimName: worker-data}}]
`

// A namespace that is not as its role's template has it is reported, once for each change, and nothing in it is changed.
func testDrift(t *testing.T, c *cluster) {
	const ns = "agent-driver"
	r := c.newReaping(t)
	r.policy.Reaper.Namespaces.Mode = "Off" // nothing runs there
	registry := prometheus.NewRegistry()
	metrics := reaper.NewMetrics(registry)
	r.roleNamespace(t, ns, func(n *corev1.Namespace) { n.Labels[lifecycle.LabelAgentRole] = "driver" })
	r.furnish(t, ns)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "token"}, StringData: map[string]string{"password": "the-real-one"}}
	c.create(t, secret)
	templates := configMap(installation.SystemNamespace, "role-driver", func(o *metav1.ObjectMeta) {
		o.Labels = map[string]string{lifecycle.LabelRoleTemplate: "driver"}
	})
	templates.Data = map[string]string{"objects.yaml": template}
	c.create(t, templates)
	worker := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "worker"}}
	drift := func() (*reaper.Result, string) {
		t.Helper()
		r.clock.pass(20 * time.Minute) // a namespace that is being furnished is left alone
		return result(t, r.once(t, func(o *reaper.Options) { o.Metrics = metrics }), "drift"), r.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]
	}
	told := func() (n int) {
		for _, e := range r.heard.of(ns) {
			if e == reaper.NamespaceDrifted {
				n++
			}
		}
		return n
	}
	gauge := func(want float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "agent_lifecycle_reaper_drifted_namespaces" {
				if got := f.GetMetric()[0].GetGauge().GetValue(); got != want {
					t.Errorf("%g namespaces drifted, want %g", got, want)
				}
			}
		}
	}

	if got, note := drift(); got.Error != "" || note != "" || got.Kept["as its template"] != 1 {
		t.Fatalf("as it was made: %+v, %q", got, note)
	}
	gauge(0)

	patch := func(o client.Object, patch string) {
		t.Helper()
		if err := c.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(patch))); err != nil {
			t.Fatal(err)
		}
	}
	patch(worker, `{"spec":{"strategy":{"type":"RollingUpdate"}},"metadata":{"annotations":{"note":"x"}}}`)
	patch(secret, `{"data":{"password":null,"other":"eA=="}}`)
	got, note := drift()
	c.get(t, worker)
	strategy := worker.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType // the webhook may have put it back
	for _, want := range []string{"Secret token: data.password is missing"} {
		if !strings.Contains(note, want) {
			t.Errorf("noted %q, want %s; %+v", note, want, got)
		}
	}
	if !strategy && !strings.Contains(note, `Deployment worker: spec.strategy.type is "RollingUpdate"`) {
		t.Errorf("noted %q", note)
	}
	if told() != 1 {
		t.Errorf("told of it %d times, want once: %v", told(), r.heard.of(ns))
	}
	gauge(1)
	if _, again := drift(); again != note || told() != 1 {
		t.Errorf("told of it %d times, want once; %q", told(), again)
	}

	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "lifecycle-reaper"}}
	c.get(t, binding)
	granted := binding.DeepCopy()
	granted.ResourceVersion = ""
	if err := c.Client.Delete(t.Context(), binding); err != nil {
		t.Fatal(err)
	}
	got, note = drift()
	if !strings.Contains(note, "RoleBinding lifecycle-reaper may not be read by the reaper") || told() != 2 || got.Error != "" {
		t.Errorf("without rights: %+v, %q", got, note)
	}
	c.create(t, granted)
	patch(secret, `{"data":{"password":"eA=="}}`)
	patch(worker, `{"spec":{"strategy":{"type":"Recreate","rollingUpdate":null}}}`)
	if got, note := drift(); note != "" || got.Error != "" || told() != 2 {
		t.Errorf("as it was again: %+v, %q", got, note)
	}
	gauge(0)

	patch(templates, `{"data":{"more.yaml":"{apiVersion: v1, kind: ConfigMap, metadata: {name: lacks}}\n---\n{apiVersion: example.com/v1, kind: Thing, metadata: {name: it}}"}}`)
	if _, note := drift(); !strings.Contains(note, "2 differences") || !strings.Contains(note, "ConfigMap lacks is missing; Thing it is of a kind that the reaper does not read") {
		t.Errorf("noted %q", note)
	}
	patch(templates, `{"data":{"more.yaml":"{apiVersion: v1, kind: ConfigMap, metadata: {name: lacks}, dada: {}}"}}`)
	before := r.namespace(t, ns).Annotations[lifecycle.AnnotationDrift]
	if got, note := drift(); !strings.Contains(got.Error, `template dexorder-system/role-driver: more.yaml, document 1: `) || note != before {
		t.Errorf("with a template that cannot be read: %+v, %q", got, note)
	}
	gauge(1)
	r.policy.Reaper.Drift.Mode = "Off"
	if got, _ := drift(); got.Error != "" || got.Examined != 0 {
		t.Errorf("off: %+v", got)
	}
	gauge(0) // nobody looks any more
	if err := c.Client.Delete(t.Context(), templates); err != nil {
		t.Fatal(err)
	}
	r.policy.Reaper.Drift.Mode = "Report"
	if got, note := drift(); note != "" || got.Error != "" {
		t.Errorf("without a template: %+v, %q", got, note)
	}

	// One that is on its way out has not drifted, however little is left of it.
	templates.ResourceVersion = ""
	c.create(t, templates)
	patch(templates, `{"data":{"more.yaml":"{apiVersion: v1, kind: ConfigMap, metadata: {name: lacks}}"}}`)
	if _, note := drift(); note == "" {
		t.Error("what is missing is not noted")
	}
	gauge(1)
	patch(r.namespace(t, ns), `{"metadata":{"annotations":{"`+lifecycle.AnnotationDeprovisioned+`":"2026-01-01T00:00:00Z somebody"}}}`)
	drift()
	gauge(0)
}
