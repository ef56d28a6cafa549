package manifests

import (
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/provision"
)

const systemNamespace = "dexorder-system"

// admissionPort and healthPort are containerPorts of manifests/base/deployment.yaml; TestPortsOfSystemPolicies compares them.
const (
	admissionPort = 8443
	healthPort    = 8080
)

// The webhook's port is open to every source in each overlay, with each component beside system-isolation, unless webhook-callers is
// one of them: admission fails closed, and the API server's source may be any.
func TestWebhookIsOpen(t *testing.T) {
	for _, overlay := range directories(t, "overlays/*/kustomization.yaml") {
		for _, dir := range directories(t, "components/*/kustomization.yaml") {
			beside := dir
			switch component := filepath.Base(dir); component {
			case "webhook-callers":
				continue // it closes the port
			case "reaper-account", "reaper-deployment", "reaper-cronjob":
				if overlay == "overlays/prod" {
					continue // it has the first two, and one of the last two
				}
			case "gateway", "system-isolation": // of every overlay, and added below
				beside = ""
			case "nats-credentials":
				beside = "components/nats and " + dir
			}
			installation := overlay + " with components/system-isolation"
			if beside != "" {
				installation = overlay + " with " + beside + " and components/system-isolation"
			}
			t.Run(overlay+" "+filepath.Base(dir), func(t *testing.T) {
				t.Parallel()
				objects := render(t, installation)
				one(t, objects, "NetworkPolicy", "lifecycle-webhook")
				for _, problem := range webhookClosedBy(t, objects) {
					t.Error(problem)
				}
			})
		}
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			for _, problem := range webhookClosedBy(t, render(t, overlay)) {
				t.Error(problem)
			}
		})
	}
}

// TestWebhookClosedByIsSeen holds the check of TestWebhookIsOpen to finding a policy that closes the port.
func TestWebhookClosedByIsSeen(t *testing.T) {
	if found := webhookClosedBy(t, render(t, withNamedCallers)); len(found) != 1 {
		t.Errorf("found %q, want the one policy that webhook-callers closes", found)
	}
}

// webhookClosedBy lists the policies that select the webhook's Pods and do not let in everybody, or hold back what the server asks.
func webhookClosedBy(t *testing.T, objects []*unstructured.Unstructured) []string {
	t.Helper()
	var found []string
	for _, p := range ofKind[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy") {
		if p.Namespace != systemNamespace || !selects(t, &p.Spec.PodSelector, named("lifecycle-webhook")) {
			continue
		}
		open := false
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				open = open || len(rule.From) == 0 && port.Port.IntValue() == admissionPort
			}
		}
		if !open {
			found = append(found, "policy "+p.Name+" has no rule for port 8443 without a source")
		}
		for _, direction := range p.Spec.PolicyTypes {
			if direction == networkingv1.PolicyTypeEgress {
				found = append(found, "policy "+p.Name+" holds back what the webhook asks the API server")
			}
		}
	}
	return found
}

func selects(t *testing.T, selector *metav1.LabelSelector, pod map[string]string) bool {
	t.Helper()
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return s.Matches(labels.Set(pod))
}

// Deleting the policy of a server is the way out when it was wrong, and must open that server: no Pod may be selected by two.
func TestSystemPoliciesAreComplete(t *testing.T) {
	for _, installation := range []string{withSystemIsolation, withNamedCallers} {
		policies := ofKind[networkingv1.NetworkPolicy](t, render(t, installation), "NetworkPolicy")
		for _, server := range []string{"lifecycle-webhook", "lifecycle-reaper", "agent-gateway"} {
			var by []string
			for _, p := range policies {
				if p.Namespace == systemNamespace && selects(t, &p.Spec.PodSelector, named(server)) {
					by = append(by, p.Name)
				}
			}
			if len(by) != 1 || by[0] != server {
				t.Errorf("%s: %s is selected by %q, want the policy of its name alone", installation, server, by)
			}
		}
	}
}

// The policies select Pods that there are, and name ports that those have.
func TestPortsOfSystemPolicies(t *testing.T) {
	objects := render(t, withSystemIsolation)
	for server, ports := range map[string][]int32{
		"lifecycle-webhook": {admissionPort, healthPort}, "lifecycle-reaper": {healthPort}, "agent-gateway": {8000, healthPort},
	} {
		template := one(t, objects, "Deployment", server)
		spec, _, err := unstructured.NestedMap(template.Object, "spec", "template")
		if err != nil {
			t.Fatal(err)
		}
		pod := *as[corev1.PodTemplateSpec](t, &unstructured.Unstructured{Object: spec})
		if !selects(t, &metav1.LabelSelector{MatchLabels: named(server)}, pod.Labels) {
			t.Errorf("Pods of %s have labels %v", server, pod.Labels)
		}
		has := map[int32]bool{}
		for _, port := range pod.Spec.Containers[0].Ports {
			has[port.ContainerPort] = true
		}
		for _, port := range ports {
			if !has[port] {
				t.Errorf("%s does not listen on %d, which its policy names", server, port)
			}
		}
	}
	cronjob := one(t, render(t, withCronJob), "CronJob", "lifecycle-reaper")
	podLabels, _, err := unstructured.NestedStringMap(cronjob.Object, "spec", "jobTemplate", "spec", "template", "metadata", "labels")
	if err != nil || !selects(t, &metav1.LabelSelector{MatchLabels: named("lifecycle-reaper")}, podLabels) {
		t.Errorf("Pods of the CronJob have labels %v (%v)", podLabels, err)
	}
}

// system is who reaches the servers with system-isolation alone.
var system = []passage{
	// Everybody reaches admission, whose verdicts are for the API server.
	{"api server", "webhook", tcp, admissionPort, true},
	{"node", "webhook", tcp, admissionPort, true},
	{"neighbour", "webhook", tcp, admissionPort, true},
	{"konnectivity", "webhook", tcp, admissionPort, true},
	{"internet, IPv6", "webhook", tcp, admissionPort, true},
	{"stranger", "webhook", tcp, admissionPort, true},
	{"gateway", "webhook", tcp, admissionPort, false}, // its own egress

	{"prometheus", "webhook", tcp, healthPort, true},
	{"prometheus", "reaper", tcp, healthPort, true},
	{"prometheus", "gateway", tcp, healthPort, true},
	{"prometheus", "gateway", tcp, 8000, false},
	{"stranger", "webhook", tcp, healthPort, false},
	{"stranger", "reaper", tcp, healthPort, false},
	{"stranger", "gateway", tcp, healthPort, false},
	{"stranger", "gateway", tcp, 8000, false},
	{"stranger", "webhook", tcp, 22, false},
	{"backend", "gateway", tcp, 8000, false},
	{"marketing", "gateway", tcp, 8000, false},
	{"user agent", "gateway", tcp, 8000, false},
	{"false gateway", "gateway", tcp, 8000, false},

	{"gateway", "user agent", tcp, 3000, true},
	{"gateway", "user agent", tcp, 8377, true},
	{"gateway", "user agent", tcp, 22, false},
	{"gateway", "marketing", tcp, 8377, false}, // it is for users' agents
	{"gateway", "reaper", tcp, healthPort, false},
	{"reaper", "user agent", tcp, 8377, false},
	{"gateway", "metadata", tcp, 80, false},
	{"reaper", "metadata", tcp, 80, false},
	{"gateway", "node", tcp, 10250, false},
	{"webhook", "api server", tcp, 443, true},
	{"webhook", "node", tcp, 16443, true},
	{"webhook", "nats", tcp, 4222, true},
}

// both are gateway and reaper, which have the same way out.
var both = []passage{
	{"", "api server", tcp, 443, true},
	{"", "node", tcp, 6443, true},
	{"", "neighbour", tcp, 6443, true},
	{"", "dns", udp, 53, true},
	{"", "dns", tcp, 53, true},
	{"", "nats", tcp, 4222, true},
	{"", "nats", tcp, 8222, false},
	{"", "internet", tcp, 80, false},
	{"", "internet", udp, 443, false},
}

// TestSystemIsolation says who reaches the servers, and what they reach, by an evaluator of NetworkPolicies.
func TestSystemIsolation(t *testing.T) {
	network := newNetwork(t, render(t, withSystemIsolation))
	for _, p := range system {
		network.check(t, p)
	}
	for _, from := range []string{"gateway", "reaper"} {
		for _, p := range both {
			p.from = from
			network.check(t, p)
		}
	}
}

// The webhook is closed to all but the named sources, and nothing else changes; agents reach nothing of the system.
func TestWebhookCallers(t *testing.T) {
	network := newNetwork(t, render(t, withNamedCallers))
	for _, p := range []passage{
		{"node", "webhook", tcp, admissionPort, true},
		{"konnectivity", "webhook", tcp, admissionPort, true},
		{"neighbour", "webhook", tcp, admissionPort, false},
		{"stranger", "webhook", tcp, admissionPort, false},
		{"dns", "webhook", tcp, admissionPort, false}, // of the same namespace as konnectivity
		{"internet", "webhook", tcp, admissionPort, false},
		{"prometheus", "webhook", tcp, admissionPort, false},
		{"prometheus", "webhook", tcp, healthPort, true},
		{"stranger", "webhook", tcp, healthPort, false},
		{"backend", "gateway", tcp, 8000, true},
		{"backend", "gateway", tcp, healthPort, false},
		{"stranger", "gateway", tcp, 8000, false},
		{"user agent", "gateway", tcp, 8000, false},
		{"user agent", "webhook", tcp, admissionPort, false},
		{"gateway", "user agent", tcp, 8377, true},
	} {
		network.check(t, p)
	}
}

// What any Pod can do to the webhook without credentials, no agent can: none reaches the servers' ports, whatever components it has.
// The policies of dexorder-system are not there, so that this rests on the agents' own.
func TestAgentsDoNotReachSystem(t *testing.T) {
	components, err := filepath.Glob("role-namespace/components/*/kustomization.yaml")
	if err != nil || len(components) == 0 {
		t.Fatal("found no components of role agents", err)
	}
	agents := map[string]network{"user agent": newNetwork(t, render(t, withIsolation))}
	for _, file := range components {
		component := filepath.Base(filepath.Dir(file))
		r, err := provision.Render(provision.Role{
			Name: "marketing", Org: "dexorder", Environment: "production", Components: []string{component},
		})
		if err != nil {
			t.Fatal(err)
		}
		agents["marketing with "+component] = newNetwork(t, r.Objects)
	}
	for agent, network := range agents {
		from, _, _ := strings.Cut(agent, " with ")
		for _, to := range []string{"webhook", "reaper", "gateway"} {
			for _, port := range []int{443, admissionPort, healthPort} {
				network.check(t, passage{from, to, tcp, port, false})
			}
		}
	}
}

// The component that kubectl agents api-server prints narrows the way of gateway and reaper to the API server, and leaves the rest.
func TestSystemIsolationWithAPIServer(t *testing.T) {
	network := newNetwork(t, render(t, withSystemIsolation+" and "+apiServerComponent(t)))
	for _, from := range []string{"gateway", "reaper"} {
		for _, p := range both {
			p.from = from
			if p.to == "node" || p.to == "neighbour" {
				p.allowed = false
			}
			network.check(t, p)
		}
		for _, p := range []passage{
			{from, "api server", tcp, 6443, false},
			{from, "internet", tcp, 443, true}, // it is the API server
			{from, "internet", tcp, 6443, false},
			{from, "stranger", tcp, 443, false},
		} {
			network.check(t, p)
		}
	}
	network.check(t, passage{"gateway", "user agent", tcp, 8377, true})
	network.check(t, passage{"webhook", "node", tcp, 6443, true})
}

// testSystemPolicies: webhook-callers without sources is no policy that closes the port to all, but one that the API server refuses, so
// that the one before stays.
func testSystemPolicies(t *testing.T, cp *controlplane.ControlPlane) {
	policies := func(installation string) []*unstructured.Unstructured {
		var found []*unstructured.Unstructured
		for _, o := range render(t, installation) {
			if o.GetKind() == "NetworkPolicy" && o.GetName() == "lifecycle-webhook" {
				found = append(found, o)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%s has %d policies of that name, want 1", installation, len(found))
		}
		return found
	}
	apply := newApplier(t, cp.Config)
	before := apply.all(t, policies(withSystemIsolation))
	_, err := apply.Apply(t.Context(), policies(withSystemIsolation+" and components/webhook-callers"))
	if err == nil || !strings.Contains(err.Error(), "spec.ingress[0].from[0].ipBlock.cidr") ||
		!strings.Contains(err.Error(), "name-the-sources-of-the-API-server") {
		t.Errorf("without sources: %v, want that the field and the value are refused", err)
	}
	after, err := apply.typed.NetworkingV1().NetworkPolicies(systemNamespace).Get(t.Context(), "lifecycle-webhook", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := before["NetworkPolicy/lifecycle-webhook"]; after.ResourceVersion != want {
		t.Errorf("the policy has changed: %v", after.Spec)
	}
	apply.all(t, policies(withNamedCallers))
}

// directories are those of kustomizations.
func directories(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: found nothing: %v", pattern, err)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}
