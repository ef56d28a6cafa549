package gateway

import (
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// A template of v0.1.0, which knew no headless Services, must not stop the gateway, nor must its clients find nothing
// behind a port.
func TestNewServicesAreHeadless(t *testing.T) {
	good := exampleTemplate(t).text
	const (
		none  = "  clusterIP: None\n"
		ports = "    port: 3000\n    targetPort: mcp\n"
	)
	for _, tt := range []struct{ name, none, ports, clusterIP, warning string }{
		{"as shipped", none, ports, "None", ""},
		{"as in v0.1.0", "", ports, "None", ""},
		{"a type that says so", "  type: ClusterIP\n", ports, "None", ""},
		{"numbers", "", "    port: 3000\n    targetPort: 3000\n", "None", ""},
		{"two ports", "", ports + "  - name: lifecycle\n    port: 8377\n", "None", ""},
		{"another port", "", "    port: 80\n    targetPort: mcp\n", "",
			"spec.ports[0]: port 80 has targetPort mcp; for a headless Service they must be the same, since it translates no ports"},
		{"another number", "", "    port: 80\n    targetPort: 3000\n", "", "spec.ports[0]: port 80 has targetPort 3000;"},
		{"another second port", "", ports + "  - name: lifecycle\n    port: 80\n    targetPort: lifecycle\n", "", "spec.ports[1]: port 80 has targetPort lifecycle;"},
		{"a second port of nobody", "", ports + "  - name: x\n    port: 80\n    targetPort: x\n", "", "spec.ports[1]: port 80 has targetPort x;"},
		{"another type", "  type: NodePort\n", ports, "", "spec.type is NodePort;"},
		{"an address", "  clusterIP: 10.0.0.7\n", ports, "10.0.0.7", "spec.clusterIP is an address;"},
		{"headless, another port", none, "    port: 80\n    targetPort: mcp\n", "None", ""},
	} {
		text := strings.Replace(strings.Replace(good, none, tt.none, 1), ports, tt.ports, 1)
		if text == good && tt.name != "as shipped" {
			t.Fatalf("%s: the template has no %q", tt.name, none+ports)
		}
		template, err := ParseTemplate([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		o, err := template.render("agent-x")
		if err != nil {
			t.Fatal(err)
		}
		if got := o.service.Spec.ClusterIP; got != tt.clusterIP {
			t.Errorf("%s: clusterIP %q, want %q", tt.name, got, tt.clusterIP)
		}
		got := strings.Join(template.Warnings(), "\n")
		if !strings.Contains(got, tt.warning) || tt.warning == "" && got != "" {
			t.Errorf("%s: warnings %q, want %q", tt.name, got, tt.warning)
		}
	}
}

// The API server refuses a change of a stored Service's cluster IP, and with it the agent's return.
func TestStoredServicesKeepTheirSpec(t *testing.T) {
	agent := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "agent-a", UID: "new"}}
	w := &want{name: "agent-a", user: "a", userType: lifecycle.Paid}
	stored := w.newService(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "agent-a"}, Spec: corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"},
		Ports: []corev1.ServicePort{{Name: "mcp", Port: 80, TargetPort: intstr.FromString("mcp")}},
	}}, agent)
	if changed := w.changedService(stored, agent); changed != nil {
		t.Errorf("a Service that is as it was made is changed to %+v", changed)
	}
	w.userType = lifecycle.Enterprise
	changed := w.changedService(stored, agent)
	if changed == nil || changed.Labels[lifecycle.LabelUserType] != "enterprise" || !reflect.DeepEqual(changed.Spec, stored.Spec) {
		t.Errorf("of another user type it becomes %+v", changed)
	}
}
