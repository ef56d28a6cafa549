package manifests

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/provision"
)

// somebody is a Pod, or an address outside of the cluster if it has no namespace.
type somebody struct {
	ip        string
	namespace string
	labels    map[string]string
}

func (s somebody) peer() *matcher.TrafficPeer {
	peer := &matcher.TrafficPeer{IP: s.ip}
	if s.namespace != "" {
		peer.Internal = &matcher.InternalPeer{
			Namespace: s.namespace, NamespaceLabels: map[string]string{corev1.LabelMetadataName: s.namespace}, PodLabels: s.labels,
		}
	}
	return peer
}

func named(name string) map[string]string { return map[string]string{"app.kubernetes.io/name": name} }

// everybody is who there is in a cluster. Its Pods have private addresses but for two, since some clusters give them public ones.
var everybody = map[string]somebody{
	"user agent":         {"10.244.1.1", "dexorder-agents", map[string]string{"lifecycle.dexorder.io/deployment": "agent-user-abc123"}},
	"another user agent": {"10.244.1.2", "dexorder-agents", map[string]string{"app": "agent"}},
	"public user agent":  {"203.0.113.66", "dexorder-agents", map[string]string{"app": "agent"}},
	"marketing":          {"10.244.2.1", "agent-marketing", map[string]string{"app": "agent"}},
	"marketing's Job":    {"10.244.2.2", "agent-marketing", map[string]string{"batch.kubernetes.io/job-name": "report"}},
	"public marketing":   {"2001:db8::66", "agent-marketing", map[string]string{"app": "agent"}},
	"ceo":                {"10.244.3.1", "agent-ceo-staging", map[string]string{"app": "agent"}},
	"gateway":            {"10.244.4.1", "dexorder-system", named("agent-gateway")},
	"webhook":            {"10.244.4.2", "dexorder-system", named("lifecycle-webhook")},
	"false gateway":      {"10.244.4.3", "default", named("agent-gateway")},
	"reaper":             {"10.244.4.4", "dexorder-system", named("lifecycle-reaper")},
	"backend":            {"10.244.8.1", "web", map[string]string{"app": "frontend"}},
	"prometheus":         {"10.244.8.2", "monitoring", named("prometheus")},
	"konnectivity":       {"10.244.5.4", "kube-system", map[string]string{"k8s-app": "konnectivity-agent"}},
	"dns":                {"10.244.5.1", "kube-system", map[string]string{"k8s-app": "kube-dns"}},
	"kube-proxy":         {"10.244.5.2", "kube-system", map[string]string{"k8s-app": "kube-proxy"}},
	"false dns":          {"10.244.5.3", "default", map[string]string{"k8s-app": "kube-dns"}},
	"nats":               {"10.244.6.1", "nats", named("nats")},
	"redpanda":           {"10.244.6.2", "redpanda", named("redpanda")},
	"stranger":           {"10.244.7.1", "default", map[string]string{"app": "web"}},
	"api server":         {ip: "10.96.0.1"},
	"another service":    {ip: "10.96.0.2"},
	"node":               {ip: "172.18.0.2"},
	"neighbour":          {ip: "192.168.1.1"},
	"internet":           {ip: "198.51.100.7"},
	"internet, IPv6":     {ip: "2606:4700::1111"},
	"metadata":           {ip: "169.254.169.254"},
	"metadata, AWS IPv6": {ip: "fd00:ec2::254"},
	"metadata, Azure":    {ip: "168.63.129.16"},
	"metadata, Alibaba":  {ip: "100.100.100.200"},
	"metadata, Oracle":   {ip: "192.0.0.192"},
	"NAT64 of metadata":  {ip: "64:ff9b::a9fe:a9fe"},
}

// passage is a connection, and whether it is let through.
type passage struct {
	from, to string
	protocol corev1.Protocol
	port     int
	allowed  bool
}

const (
	tcp = corev1.ProtocolTCP
	udp = corev1.ProtocolUDP
)

// passages are for all agents alike; "AGENT" is each of those that tests name.
var passages = []passage{
	{"gateway", "AGENT", tcp, 3000, true},
	{"gateway", "AGENT", tcp, 8377, true},
	{"gateway", "AGENT", tcp, 22, false},
	{"gateway", "AGENT", udp, 3000, false},
	{"webhook", "AGENT", tcp, 8377, false},
	{"false gateway", "AGENT", tcp, 8377, false},
	{"stranger", "AGENT", tcp, 3000, false},
	{"node", "AGENT", tcp, 3000, false},
	{"internet", "AGENT", tcp, 3000, false},
	{"nats", "AGENT", tcp, 3000, false},
	{"kube-proxy", "AGENT", tcp, 3000, false},

	{"AGENT", "gateway", tcp, 8080, false},
	{"AGENT", "reaper", tcp, 8080, false},
	{"AGENT", "false gateway", tcp, 8000, false},
	{"AGENT", "webhook", tcp, 8443, false},
	{"AGENT", "webhook", tcp, 8080, false},
	{"AGENT", "dns", udp, 53, true},
	{"AGENT", "dns", tcp, 53, true},
	{"AGENT", "dns", tcp, 443, false},
	{"AGENT", "false dns", udp, 53, false},
	{"AGENT", "internet", udp, 53, false},
	{"AGENT", "kube-proxy", tcp, 443, false},
	{"AGENT", "kube-proxy", udp, 53, false},
	{"AGENT", "stranger", tcp, 443, false},
	{"AGENT", "another service", tcp, 443, false},
	{"AGENT", "node", tcp, 443, false},
	{"AGENT", "node", tcp, 6443, false},
	{"AGENT", "node", tcp, 10250, false},
	{"AGENT", "neighbour", tcp, 443, false},
	{"AGENT", "internet", tcp, 443, true},
	{"AGENT", "internet, IPv6", tcp, 443, true},
	{"AGENT", "internet", udp, 443, false},
	{"AGENT", "internet", tcp, 80, false},
	{"AGENT", "internet", tcp, 25, false},
	{"AGENT", "metadata", tcp, 80, false},
	{"AGENT", "metadata", tcp, 443, false},
	{"AGENT", "metadata, AWS IPv6", tcp, 443, false},
	{"AGENT", "metadata, Azure", tcp, 443, false},
	{"AGENT", "metadata, Alibaba", tcp, 443, false},
	{"AGENT", "metadata, Oracle", tcp, 443, false},
	{"AGENT", "NAT64 of metadata", tcp, 443, false},

	// No agent reaches another, whatever its port and address.
	{"AGENT", "another user agent", tcp, 3000, false},
	{"AGENT", "another user agent", tcp, 8377, false},
	{"AGENT", "another user agent", tcp, 443, false},
	{"AGENT", "public user agent", tcp, 443, false},
	{"AGENT", "public marketing", tcp, 443, false},
	{"AGENT", "marketing's Job", tcp, 3000, false},
	{"user agent", "AGENT", tcp, 3000, false},
	{"marketing", "AGENT", tcp, 8377, false},
	{"ceo", "AGENT", tcp, 443, false},
}

// particular is where agents differ.
var particular = []passage{
	// It has no token by which the gateway would know it. A role agent may have one.
	{"user agent", "gateway", tcp, 8000, false},
	{"marketing", "gateway", tcp, 8000, true},
	{"ceo", "gateway", tcp, 8000, true},

	{"user agent", "api server", tcp, 443, true},
	{"user agent", "api server", udp, 443, false},
	{"user agent", "api server", tcp, 80, false},
	{"user agent", "nats", tcp, 4222, true},
	{"user agent", "nats", tcp, 8222, false},
	{"user agent", "redpanda", tcp, 9092, false},
	{"user agent", "internet", tcp, 22, false},

	// Its sidecar has nothing to ask: it never shuts down. It has the component git-ssh.
	{"marketing", "api server", tcp, 443, false},
	{"marketing", "nats", tcp, 4222, true},
	{"marketing", "internet", tcp, 22, true},
	{"marketing", "metadata, Azure", tcp, 22, false},
	{"marketing", "node", tcp, 22, false},
	{"marketing", "user agent", tcp, 22, false},
	{"marketing's Job", "internet", tcp, 443, true},
	{"marketing's Job", "marketing", tcp, 3000, false},
	{"marketing's Job", "stranger", tcp, 443, false},

	// It shuts down, and it has redpanda in place of NATS.
	{"ceo", "api server", tcp, 443, true},
	{"ceo", "nats", tcp, 4222, false},
	{"ceo", "redpanda", tcp, 9092, true},
	{"ceo", "redpanda", tcp, 9644, false},
	{"ceo", "internet", tcp, 22, false},

	// Policies of agents' namespaces are nobody else's.
	{"stranger", "internet", tcp, 80, true},
	{"webhook", "dns", udp, 53, true},
}

// TestIsolation says who reaches whom, by an evaluator of NetworkPolicies. The API server only stores them: whether a cluster holds to
// them is up to its network plugin.
func TestIsolation(t *testing.T) {
	objects := render(t, withIsolation)
	for _, overlay := range []string{"role-namespace/overlays/marketing-production", "role-namespace/overlays/ceo-staging"} {
		objects = append(objects, render(t, overlay)...)
	}
	network := newNetwork(t, objects)
	for _, agent := range []string{"user agent", "marketing", "ceo"} {
		for _, p := range passages {
			for _, end := range []*string{&p.from, &p.to} {
				if *end == "AGENT" {
					*end = agent
				}
			}
			if p.from != p.to {
				network.check(t, p)
			}
		}
	}
	for _, p := range particular {
		network.check(t, p)
	}
}

// Where the API server is reached from outside by a public address, that one is no part of the internet, and only for whom it is meant.
func TestIsolationFromPublicAPIServer(t *testing.T) {
	server := provision.APIServer{netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("198.51.100.7:443"), netip.MustParseAddrPort("[2606:4700::1111]:443")}
	var objects []*unstructured.Unstructured
	for _, role := range []provision.Role{
		{Name: "marketing", Dir: "role-namespace/overlays/marketing-production"},
		{Name: "ceo", Dir: "role-namespace/overlays/ceo-staging"},
	} {
		r, err := provision.Render(role)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Reach(server); err != nil {
			t.Fatal(err)
		}
		objects = append(objects, r.Objects...)
	}
	network := newNetwork(t, objects)
	for _, p := range []passage{
		{"marketing", "internet", tcp, 443, false},
		{"marketing", "internet", tcp, 22, false},
		{"marketing", "internet, IPv6", tcp, 443, false},
		{"marketing", "api server", tcp, 443, false},
		{"ceo", "internet", tcp, 443, true},
		{"ceo", "internet, IPv6", tcp, 443, true},
		{"ceo", "internet", tcp, 80, false},
		{"ceo", "api server", tcp, 443, true},
		{"ceo", "api server", tcp, 6443, false},
		{"ceo", "metadata", tcp, 443, false},
	} {
		network.check(t, p)
	}
}

// The same for user agents, by the component that kubectl agents api-server prints. It takes nothing away from one that is listed after it.
func TestIsolationOfUserAgentsFromPublicAPIServer(t *testing.T) {
	dir := apiServerComponent(t)
	all := newNetwork(t, render(t, withIsolation+" and "+dir))
	for _, p := range []passage{
		{"user agent", "api server", tcp, 443, true},
		{"user agent", "api server", tcp, 6443, false},
		{"user agent", "internet", tcp, 443, true}, // it is the API server
		{"user agent", "internet", tcp, 6443, false},
		{"user agent", "metadata", tcp, 443, false},
		{"user agent", "node", tcp, 6443, false},
		{"user agent", "dns", udp, 53, true},
		{"gateway", "user agent", tcp, 8377, true},
	} {
		all.check(t, p)
	}
	without := newNetwork(t, render(t, withIsolation+" and "+dir+" and components/controller-cleanup"))
	for _, p := range []passage{
		{"user agent", "internet", tcp, 443, false},
		{"user agent", "internet, IPv6", tcp, 443, false},
		{"user agent", "api server", tcp, 443, false},
		{"user agent", "dns", udp, 53, true},
	} {
		without.check(t, p)
	}
}

// apiServerComponent is the component that kubectl agents api-server prints where the API server is reached by public addresses, too.
func apiServerComponent(t *testing.T) string {
	t.Helper()
	server := provision.APIServer{netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("198.51.100.7:443"), netip.MustParseAddrPort("[2606:4700::1111]:443")}
	component, err := server.Component("dexorder-agents")
	if err != nil {
		t.Fatal(err)
	}
	dir := relative(t, t.TempDir())
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), component, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// relative is a directory as seen from the working directory, as kustomize wants it.
func relative(t *testing.T, dir string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Rel(here, dir)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Where the reaper deletes agents, they have no way to the API server and no right there; all else is as before.
func TestControllerCleanup(t *testing.T) {
	for _, installation := range []string{
		"overlays/staging with components/isolation and components/controller-cleanup",
		"overlays/staging with components/controller-cleanup",
	} {
		objects := render(t, installation)
		for _, o := range objects {
			if o.GetName() == "agent-self-delete" && (o.GetKind() == "Role" || o.GetKind() == "RoleBinding") {
				t.Errorf("%s: %s %s is still there", installation, o.GetKind(), o.GetName())
			}
		}
		if len(ofKind[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy")) == 0 {
			continue
		}
		network := newNetwork(t, objects)
		for _, p := range []passage{
			{"user agent", "api server", tcp, 443, false},
			{"user agent", "node", tcp, 6443, false},
			{"user agent", "internet", tcp, 443, true},
			{"user agent", "dns", udp, 53, true},
			{"gateway", "user agent", tcp, 8377, true},
		} {
			network.check(t, p)
		}
	}
}

type network struct{ *matcher.Policy }

func newNetwork(t *testing.T, objects []*unstructured.Unstructured) network {
	t.Helper()
	policies := ofKind[networkingv1.NetworkPolicy](t, objects, "NetworkPolicy")
	return network{matcher.BuildNetworkPolicies(false, policies)}
}

func (n network) check(t *testing.T, p passage) {
	t.Helper()
	for _, end := range []string{p.from, p.to} {
		if _, known := everybody[end]; !known {
			t.Fatalf("%q is nobody", end)
		}
	}
	result := n.IsTrafficAllowed(&matcher.Traffic{
		Source: everybody[p.from].peer(), Destination: everybody[p.to].peer(), ResolvedPort: p.port, Protocol: p.protocol,
	})
	if result.IsAllowed() != p.allowed {
		t.Errorf("%s to %s, %s %d: allowed %t (out %t, in %t), want %t", p.from, p.to, p.protocol, p.port, result.IsAllowed(),
			result.Egress.IsAllowed(), result.Ingress.IsAllowed(), p.allowed)
	}
}
