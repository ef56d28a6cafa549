package provision

import (
	"fmt"
	"io/fs"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/resid"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	rolenamespace "github.com/dexorder/agent-lifecycle/manifests/role-namespace"
)

// Names of the policies of user agents that say something of the API server, in manifests/components/isolation.
const (
	policyAPIServer = "api-server"
	policyInternet  = "internet"
)

// policiesOfSystem matches the names of the policies in manifests/components/system-isolation whose first egress rule leads to the
// API server; systemNamespace is their namespace.
const (
	policiesOfSystem = "agent-gateway|lifecycle-reaper"
	systemNamespace  = "dexorder-system"
)

// operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Component is a kustomize Component that says to the network policies of user agents where the API server is, as Reach does to those
// of role agents, and to those of gateway and reaper. namespace is the one of user agents. Policies that are not installed are left out.
func (s APIServer) Component(namespace string) ([]byte, error) {
	exceptions, err := s.exceptions()
	if err != nil {
		return nil, err
	}
	component := types.Kustomization{TypeMeta: types.TypeMeta{APIVersion: types.ComponentVersion, Kind: types.ComponentKind}}
	for _, policy := range []struct {
		namespace, name string
		operations      []operation
	}{
		{namespace, policyAPIServer, []operation{{"replace", "/spec/egress", s.rules()}}},
		{namespace, policyInternet, exceptions},
		{systemNamespace, policiesOfSystem, s.firstRules()},
	} {
		if len(policy.operations) == 0 {
			continue
		}
		patch, err := yaml.Marshal(policy.operations)
		if err != nil {
			return nil, err
		}
		component.Patches = append(component.Patches, types.Patch{Patch: string(patch), Target: &types.Selector{ResId: resid.ResId{
			Gvk: resid.Gvk{Kind: kindNetworkPolicy}, Name: policy.name, Namespace: policy.namespace,
		}}})
	}
	return yaml.Marshal(component)
}

// firstRules puts the rules to the API server in the place of the first egress rule. The others stay.
func (s APIServer) firstRules() []operation {
	var operations []operation
	for i, rule := range s.rules() {
		op := "add"
		if i == 0 {
			op = "replace"
		}
		operations = append(operations, operation{op, fmt.Sprintf("/spec/egress/%d", i), rule})
	}
	return operations
}

// exceptions adds the API server to those of the policy to the internet, as far as it is not in them. They are added one by one, so that
// what somebody has written besides stays.
func (s APIServer) exceptions() ([]operation, error) {
	text, err := fs.ReadFile(rolenamespace.Files, "isolation/"+policyInternet+".yaml")
	if err != nil {
		return nil, err
	}
	policy := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(text, &policy.Object); err != nil {
		return nil, err
	}
	if to := policy.GetAnnotations()[lifecycle.AnnotationEgressTo]; to != lifecycle.EgressToInternet {
		return nil, fmt.Errorf("%s: annotation %s is %q, and must be %s", nameOf(policy), lifecycle.AnnotationEgressTo, to, lifecycle.EgressToInternet)
	}
	before, err := excepted(policy)
	if err != nil {
		return nil, err
	}
	if err := s.except(policy); err != nil {
		return nil, err
	}
	after, err := excepted(policy)
	if err != nil {
		return nil, err
	}
	var operations []operation
	for path, addresses := range after {
		for _, address := range addresses[len(before[path]):] {
			operations = append(operations, operation{"add", path + "/-", address})
		}
	}
	slices.SortFunc(operations, func(a, b operation) int {
		return slices.Compare([]string{a.Path, a.Value.(string)}, []string{b.Path, b.Value.(string)})
	})
	return operations, nil
}

// excepted returns the exceptions of a policy by where they are.
func excepted(policy *unstructured.Unstructured) (map[string][]string, error) {
	found := map[string][]string{}
	egress, _, err := unstructured.NestedSlice(policy.Object, "spec", "egress")
	if err != nil {
		return nil, err
	}
	for i, rule := range egress {
		fields, _ := rule.(map[string]any)
		peers, _, err := unstructured.NestedSlice(fields, "to")
		if err != nil {
			return nil, err
		}
		for j, peer := range peers {
			fields, _ := peer.(map[string]any)
			except, _, err := unstructured.NestedStringSlice(fields, "ipBlock", "except")
			if err != nil {
				return nil, err
			}
			found[fmt.Sprintf("/spec/egress/%d/to/%d/ipBlock/except", i, j)] = except
		}
	}
	return found, nil
}
