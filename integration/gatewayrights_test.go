package integration

import (
	"net/http"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// testGatewayRights asks the API server for all that the gateway must not be able to do. Each is refused by RBAC, before the policy
// sees it: a denial of the policy would show that RBAC had let it through.
func testGatewayRights(t *testing.T, c *cluster) {
	as := c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, "gateway"))
	c.create(t, agent("bystander"))
	c.create(t, claim("bystander-data", "bystander"))
	c.create(t, newService("bystander", "bystander"))
	pod := c.podOf(t, "bystander")
	const (
		core, apps = "/api/v1/namespaces/" + agents, "/apis/apps/v1/namespaces/" + agents
		strategic  = "application/strategic-merge-patch+json"
		apply      = "application/apply-patch+yaml"
		asJSON     = "application/json"
	)
	label := map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}}}
	for _, tt := range []struct {
		what, method, path, contentType string
		body                            any
	}{
		{"delete an agent", http.MethodDelete, apps + "/deployments/bystander", asJSON, foreground()},
		{"delete all agents", http.MethodDelete, apps + "/deployments", asJSON, foreground()},
		{"delete storage", http.MethodDelete, core + "/persistentvolumeclaims/bystander-data", asJSON, foreground()},
		{"delete all storage", http.MethodDelete, core + "/persistentvolumeclaims", asJSON, foreground()},
		{"delete a Service", http.MethodDelete, core + "/services/bystander", asJSON, foreground()},
		{"delete a Pod", http.MethodDelete, core + "/pods/" + pod.Name, asJSON, foreground()},
		{"delete all Pods", http.MethodDelete, core + "/pods", asJSON, foreground()},
		{"evict a Pod", http.MethodPost, core + "/pods/" + pod.Name + "/eviction", asJSON, map[string]any{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": map[string]any{"name": pod.Name}}},
		{"patch an agent", http.MethodPatch, apps + "/deployments/bystander", strategic, label},
		{"apply an agent", http.MethodPatch, apps + "/deployments/bystander?fieldManager=x", apply, label},
		{"patch storage", http.MethodPatch, core + "/persistentvolumeclaims/bystander-data", strategic, label},
		{"scale an agent", http.MethodPut, apps + "/deployments/bystander/scale", asJSON, map[string]any{"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": map[string]any{"name": "bystander", "namespace": agents}, "spec": map[string]any{"replicas": 0}}},
		{"write an agent's status", http.MethodPut, apps + "/deployments/bystander/status", asJSON, agent("bystander")},
		{"run something in a Pod", http.MethodPost, core + "/pods/" + pod.Name + "/exec?command=sh&container=agent&stdout=true", asJSON, nil},
		{"attach to a Pod", http.MethodPost, core + "/pods/" + pod.Name + "/attach?container=agent&stdout=true", asJSON, nil},
		{"forward a port", http.MethodPost, core + "/pods/" + pod.Name + "/portforward?ports=80", asJSON, nil},
		{"proxy to a Pod", http.MethodGet, core + "/pods/" + pod.Name + "/proxy/", asJSON, nil},
		{"read a Pod's log", http.MethodGet, core + "/pods/" + pod.Name + "/log?container=agent", asJSON, nil},
		{"debug a Pod", http.MethodPatch, core + "/pods/" + pod.Name + "/ephemeralcontainers", strategic, label},
		{"make a Pod", http.MethodPost, core + "/pods", asJSON, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x"}, Spec: pod.Spec}},
		{"change a Pod", http.MethodPut, core + "/pods/" + pod.Name, asJSON, pod},
		{"read a Secret", http.MethodGet, core + "/secrets/x", asJSON, nil},
		{"list Secrets", http.MethodGet, core + "/secrets", asJSON, nil},
		{"make a Secret", http.MethodPost, core + "/secrets", asJSON, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "x"}}},
		{"read a ConfigMap", http.MethodGet, core + "/configmaps/kube-root-ca.crt", asJSON, nil},
		{"make an agent's token", http.MethodPost, core + "/serviceaccounts/agent-lifecycle/token", asJSON, &authenticationv1.TokenRequest{}},
		{"make its own token", http.MethodPost, "/api/v1/namespaces/dexorder-system/serviceaccounts/gateway/token", asJSON, &authenticationv1.TokenRequest{}},
		{"make an account", http.MethodPost, core + "/serviceaccounts", asJSON, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "x"}}},
		{"read a Role", http.MethodGet, "/apis/rbac.authorization.k8s.io/v1/namespaces/" + agents + "/roles", asJSON, nil},
		{"make an agent elsewhere", http.MethodPost, "/apis/apps/v1/namespaces/default/deployments", asJSON, agent("x", inDefault)},
		{"make an agent in the system's namespace", http.MethodPost, "/apis/apps/v1/namespaces/dexorder-system/deployments", asJSON, agent("x", inSystem)},
		{"list agents elsewhere", http.MethodGet, "/apis/apps/v1/deployments", asJSON, nil},
		{"list storage elsewhere", http.MethodGet, "/api/v1/namespaces/default/persistentvolumeclaims", asJSON, nil},
		{"list Pods elsewhere", http.MethodGet, "/api/v1/pods", asJSON, nil},
		{"read the breaker", http.MethodGet, "/api/v1/namespaces/dexorder-system/configmaps/lifecycle-breaker", asJSON, nil},
		{"delete the namespace", http.MethodDelete, "/api/v1/namespaces/" + agents, asJSON, foreground()},
		{"read nodes", http.MethodGet, "/api/v1/nodes", asJSON, nil},
	} {
		got, err := call(t.Context(), as, tt.method, tt.path, tt.contentType, tt.body)
		if err != nil || got.code != http.StatusForbidden || !strings.Contains(got.status.Message, `User "system:serviceaccount:dexorder-system:gateway" cannot`) {
			t.Errorf("%s: %d %q, %v; want it forbidden by RBAC", tt.what, got.code, got.status.Message, err)
		}
	}
	for _, path := range []string{apps + "/deployments/bystander", core + "/persistentvolumeclaims/bystander-data", core + "/services/bystander", core + "/pods/" + pod.Name} {
		if got, err := call(t.Context(), as, http.MethodGet, path, asJSON, nil); err != nil || got.code != http.StatusOK {
			t.Errorf("GET %s: %d %v", path, got.code, err)
		}
	}
}

func inDefault(d *appsv1.Deployment) { d.Namespace = metav1.NamespaceDefault }

func inSystem(d *appsv1.Deployment) { d.Namespace = installation.SystemNamespace }
