package fleet

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/enforcement"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// serveObjects is an API server that has objects at paths; what is at none is not found, and the path "forbidden" is.
func serveObjects(t *testing.T, objects map[string]any, forbidden string) *Cluster {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		o, found := objects[r.URL.Path]
		switch {
		case forbidden != "" && strings.HasPrefix(r.URL.Path, forbidden):
			w.WriteHeader(http.StatusForbidden)
			o = metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Reason: metav1.StatusReasonForbidden, Code: http.StatusForbidden, Message: "not you"}
		case !found:
			w.WriteHeader(http.StatusNotFound)
			o = metav1.Status{Status: metav1.StatusFailure, Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound, Message: "none"}
		}
		_ = json.NewEncoder(w).Encode(o)
	}))
	t.Cleanup(server.Close)
	c, err := Connect(&rest.Config{Host: server.URL}, "dexorder-system")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const (
	systemPath  = "/api/v1/namespaces/dexorder-system/configmaps"
	gatewayPath = "/apis/apps/v1/namespaces/dexorder-system/deployments/agent-gateway"
)

func gatewayDeployment() *appsv1.Deployment {
	volume := func(name string) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: name},
		}}}
	}
	return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		Containers: []corev1.Container{{
			Args:         []string{"serve", "--agents-namespace=dexorder-agents", "--template=/etc/agent-gateway/agent.yaml"},
			VolumeMounts: []corev1.VolumeMount{{Name: "agent-gateway-abc", MountPath: "/etc/agent-gateway"}},
		}},
		// The last one, an authority for NATS perhaps, is none of the gateway's templates and may be missing.
		Volumes: []corev1.Volume{volume(lifecycle.PolicyConfigMap), volume("agent-gateway-abc"), volume("nats-ca")},
	}}}}
}

func configMap(name, key, text string, labels map[string]string) corev1.ConfigMap {
	return corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "dexorder-system", Name: name, Labels: labels}, Data: map[string]string{key: text},
	}
}

// What agents are made of is judged like the agents.
func TestTemplates(t *testing.T) {
	agent, err := os.ReadFile("../manifests/components/gateway/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	role := `apiVersion: v1
kind: ServiceAccount
metadata: {name: seller, namespace: "{namespace}"}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: report, namespace: "{namespace}"}
spec:
  schedule: "@daily"
  jobTemplate: {spec: {template: {spec: {containers: [{name: report, image: nginx}]}}}}
`
	objects := func(gateway string) map[string]any {
		return map[string]any{
			gatewayPath:                       gatewayDeployment(),
			systemPath + "/agent-gateway-abc": configMap("agent-gateway-abc", "agent.yaml", gateway, nil),
			systemPath: corev1.ConfigMapList{Items: []corev1.ConfigMap{
				configMap("seller", "role.yaml", role, map[string]string{lifecycle.LabelRoleTemplate: "seller"}),
			}},
		}
	}
	run := func(t *testing.T, c *Cluster, today *Judge, namespace string) (string, Summary) {
		t.Helper()
		audit := &Audit{Cluster: c, By: judgeBy(t), Today: today}
		var out strings.Builder
		w, summary := NewTextWriter(&out, Basis{Policy: "the policy", Installed: true}), Summary{}
		err := audit.auditTemplates(t.Context(), namespace, func(r *Report) error {
			summary.Add(r)
			return w.Report(r)
		})
		if err != nil {
			t.Fatal(err)
		}
		return out.String(), summary
	}
	t.Run("as installed", func(t *testing.T) {
		got, summary := run(t, serveObjects(t, objects(string(agent)), ""), nil, "")
		if !strings.Contains(got, "agent-seller/CronJob report (ConfigMap dexorder-system/seller, role.yaml): would be refused\n  image-allowlist: ") ||
			strings.Contains(got, "{deployment}") {
			t.Errorf("it says\n%s", got)
		}
		if summary.Templates != 2 || summary.Workloads != 0 || summary.Refused != 1 {
			t.Errorf("%+v", summary)
		}
	})
	t.Run("of another registry", func(t *testing.T) {
		broken := strings.ReplaceAll(string(agent), "image: ghcr.io/dexorder/", "image: registry.example.com/")
		if broken == string(agent) {
			t.Fatal("the template has no such image")
		}
		got, summary := run(t, serveObjects(t, objects(broken), ""), nil, "dexorder-agents")
		if !strings.Contains(got, "dexorder-agents/Deployment {deployment} (ConfigMap dexorder-system/agent-gateway-abc, agent.yaml): would be refused") ||
			strings.Contains(got, "CronJob") || summary.Refused != 1 {
			t.Errorf("%+v, and it says\n%s", summary, got)
		}
	})
	t.Run("no YAML", func(t *testing.T) {
		if got, summary := run(t, serveObjects(t, objects("a: b: c"), ""), nil, ""); summary.NotUnderstood != 1 {
			t.Errorf("%+v, and it says\n%s", summary, got)
		}
	})
	t.Run("a preview", func(t *testing.T) {
		got, _ := run(t, serveObjects(t, objects(string(agent)), ""), judgeBy(t, "- ghcr.io/dexorder/*", "- nginx.example.com/*"), "")
		if !strings.Contains(got, "newly accepted") {
			t.Errorf("it says\n%s", got)
		}
	})
	t.Run("without the right to read them", func(t *testing.T) {
		got, summary := run(t, serveObjects(t, objects(string(agent)), systemPath), nil, "")
		if !strings.Contains(got, "are not judged: ") || !strings.Contains(got, "not you") || summary != (Summary{}) {
			t.Errorf("%+v, and it says\n%s", summary, got)
		}
	})
	t.Run("without a gateway", func(t *testing.T) {
		without := objects(string(agent))
		delete(without, gatewayPath)
		if got, summary := run(t, serveObjects(t, without, ""), nil, ""); summary.Templates != 1 {
			t.Errorf("%+v, and it says\n%s", summary, got)
		}
	})
}

// An agent from before a rule comes back; in a preview, so does one from before it would be in force.
func TestNextPodOfOlderAgent(t *testing.T) {
	now := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	d := plain("ghcr.io/dexorder/agent:v1")
	j := judgeBy(t)
	j.policy.Injector(namespace).Deployment(d, nil, j.options)
	d.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	*d.Spec.Template.Spec.EnableServiceLinks = true
	stuck := func(j *Judge) string {
		return rules(j.Return(namespace, nil, workload.FromDeployment(d), d, chainOf("Deployment"), nil).Denials)
	}
	links := enforcement.Key{Profile: "user-agents", Rule: "service-links"}
	record := func(since time.Time) enforcement.Record {
		return enforcement.Record{Revision: 2, Seen: now, Since: map[enforcement.Key]time.Time{links: since}}
	}
	for name, tt := range map[string]struct {
		record  enforcement.Record
		inForce bool
		want    string
	}{
		"the rule is younger":      {record(now), true, ""},
		"the rule is older":        {record(now.Add(-2 * time.Hour)), true, "service-links"},
		"nothing is recorded":      {enforcement.Record{}, true, ""},
		"it would be in force":     {enforcement.Record{Revision: 2, Seen: now}, false, ""},
		"it has been for long":     {record(now.Add(-2 * time.Hour)), false, "service-links"},
		"it has been from the day": {record(time.Time{}), true, "service-links"},
	} {
		j.Hold(tt.record, now, tt.inForce)
		if got := stuck(j); got != tt.want {
			t.Errorf("%s: its Pod is refused by %q, want %q", name, got, tt.want)
		}
	}
}

func TestBasisTellsOfRules(t *testing.T) {
	j := judgeBy(t, "rulesRevision: 2", "rulesRevision: 1")
	since := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	var b Basis
	b.DescribeRules(j, enforcement.Record{Revision: v1alpha1.RulesRevision, Since: map[enforcement.Key]time.Time{
		{Profile: "user-agents", Rule: "volumes"}: {}, {Profile: "user-agents", Rule: "replicas"}: since,
	}}, os.ErrNotExist)
	want := `audited only, since the policy's rulesRevision is 1: service-links, object-size
rule replicas of profile user-agents is enforced since 2026-01-02T12:00:00Z; Pods of older agents are warned about
since when rules are enforced could not be read: file does not exist
`
	if diff := cmp.Diff(want, b.rules()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
