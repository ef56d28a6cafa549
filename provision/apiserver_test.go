package provision

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Only what is not excepted already is added, to the range that has it.
func TestReach(t *testing.T) {
	role := marketing()
	role.Components = []string{"shuts-down"}
	r, err := Render(role)
	if err != nil {
		t.Fatal(err)
	}
	server := APIServer{
		netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("198.51.100.7:6443"), netip.MustParseAddrPort("[2001:db8::7]:6443"),
	}
	if err := r.Reach(server); err != nil {
		t.Fatal(err)
	}
	policy := func(name string) *unstructured.Unstructured {
		i := slices.IndexFunc(r.Objects, func(o *unstructured.Unstructured) bool {
			return o.GetKind() == kindNetworkPolicy && o.GetName() == name
		})
		return r.Objects[i]
	}
	excepted := func(i int) []string {
		egress, _, _ := unstructured.NestedSlice(policy("internet").Object, "spec", "egress")
		except, _, _ := unstructured.NestedStringSlice(egress[0].(map[string]any)["to"].([]any)[i].(map[string]any), "ipBlock", "except")
		return except
	}
	has := func(i int, cidr string, want bool) {
		t.Helper()
		if got := slices.Contains(excepted(i), cidr); got != want {
			t.Errorf("%s is excepted: %t, want %t; %v", cidr, got, want, excepted(i))
		}
	}
	has(0, "198.51.100.7/32", true)
	has(0, "10.96.0.1/32", false)
	has(0, "2001:db8::7/128", false)
	has(1, "2001:db8::7/128", true)
	has(1, "198.51.100.7/32", false)
	rules, _, _ := unstructured.NestedSlice(policy("self-delete").Object, "spec", "egress")
	if len(rules) != len(server) {
		t.Errorf("%d rules lead to the API server, want %d: %v", len(rules), len(server), rules)
	}

	before := policy("internet").DeepCopy()
	if err := r.Reach(server); err != nil || len(excepted(0)) != len(before.Object["spec"].(map[string]any)["egress"].([]any)[0].(map[string]any)["to"].([]any)[0].(map[string]any)["ipBlock"].(map[string]any)["except"].([]any)) {
		t.Errorf("doing it again adds more: %v, %v", excepted(0), err)
	}
	policy("dns").SetAnnotations(map[string]string{lifecycle.AnnotationEgressTo: "moon"})
	if err := r.Reach(server); err == nil || !strings.Contains(err.Error(), `is "moon": accepted are api-server and internet`) {
		t.Errorf("%v", err)
	}
	policy("dns").SetAnnotations(map[string]string{lifecycle.AnnotationEgressTo: lifecycle.EgressToInternet})
	if err := r.Reach(server); err == nil || !strings.Contains(err.Error(), "NetworkPolicy dns: ") {
		t.Errorf("%v", err)
	}
}
