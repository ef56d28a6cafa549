package provision

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// APIServer is where the API server is as Pods see it: address and port of its Service, and those behind it. Which of the two a network
// plugin looks at differs.
type APIServer []netip.AddrPort

// FindAPIServer asks the cluster.
func FindAPIServer(ctx context.Context, c kubernetes.Interface) (APIServer, error) {
	service, err := c.CoreV1().Services(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	slicesOf, err := c.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=kubernetes",
	})
	if err != nil {
		return nil, fmt.Errorf("find the API server: %w", err)
	}
	found := map[netip.AddrPort]bool{}
	add := func(address string, port int32) error {
		parsed, err := netip.ParseAddr(address)
		if err != nil {
			return fmt.Errorf("find the API server: %w", err)
		}
		found[netip.AddrPortFrom(parsed, uint16(port))] = true //nolint:gosec // the API server has validated it
		return nil
	}
	for _, address := range service.Spec.ClusterIPs {
		for _, port := range service.Spec.Ports {
			if err := add(address, port.Port); err != nil {
				return nil, err
			}
		}
	}
	for i := range slicesOf.Items {
		for _, endpoint := range slicesOf.Items[i].Endpoints {
			for _, address := range endpoint.Addresses {
				for _, port := range slicesOf.Items[i].Ports {
					if port.Port == nil {
						continue
					}
					if err := add(address, *port.Port); err != nil {
						return nil, err
					}
				}
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("find the API server: Service default/kubernetes has neither an address nor an endpoint")
	}
	return slices.SortedFunc(maps.Keys(found), netip.AddrPort.Compare), nil
}

// Reach writes into the network policies that say so where the API server is: as the only peers of those that lead there, and as
// exceptions of those that lead to the internet.
func (r *Rendered) Reach(server APIServer) error {
	for _, o := range r.Objects {
		if o.GetKind() != kindNetworkPolicy {
			continue
		}
		switch to := o.GetAnnotations()[lifecycle.AnnotationEgressTo]; to {
		case "":
		case lifecycle.EgressToAPIServer:
			if err := unstructured.SetNestedSlice(o.Object, server.rules(), "spec", "egress"); err != nil {
				return fmt.Errorf("%s: %w", nameOf(o), err)
			}
		case lifecycle.EgressToInternet:
			if err := server.except(o); err != nil {
				return fmt.Errorf("%s: %w", nameOf(o), err)
			}
		default:
			return fmt.Errorf("%s: annotation %s is %q: accepted are %s and %s", nameOf(o), lifecycle.AnnotationEgressTo, to,
				lifecycle.EgressToAPIServer, lifecycle.EgressToInternet)
		}
	}
	return nil
}

// rules are egress rules to the API server and nowhere else.
func (s APIServer) rules() []any {
	rules := make([]any, 0, len(s))
	for _, at := range s {
		rules = append(rules, map[string]any{
			"to":    []any{map[string]any{"ipBlock": map[string]any{"cidr": netip.PrefixFrom(at.Addr(), at.Addr().BitLen()).String()}}},
			"ports": []any{map[string]any{"protocol": "TCP", "port": int64(at.Port())}},
		})
	}
	return rules
}

// except takes the API server out of every range of a policy that has it.
func (s APIServer) except(policy *unstructured.Unstructured) error {
	egress, _, err := unstructured.NestedSlice(policy.Object, "spec", "egress")
	if err != nil {
		return err
	}
	for _, rule := range egress {
		fields, _ := rule.(map[string]any)
		peers, _, err := unstructured.NestedSlice(fields, "to")
		if err != nil {
			return err
		}
		for _, peer := range peers {
			block, has, err := unstructured.NestedMap(peer.(map[string]any), "ipBlock")
			if err != nil || !has {
				return fmt.Errorf("spec.egress.to: accepted in a policy to the internet are ipBlocks")
			}
			if err := s.exceptFrom(block); err != nil {
				return err
			}
			peer.(map[string]any)["ipBlock"] = block
		}
		fields["to"] = peers
	}
	return unstructured.SetNestedSlice(policy.Object, egress, "spec", "egress")
}

func (s APIServer) exceptFrom(block map[string]any) error {
	cidr, _, _ := unstructured.NestedString(block, "cidr")
	all, err := netip.ParsePrefix(cidr)
	if err != nil {
		return err
	}
	except, _, err := unstructured.NestedStringSlice(block, "except")
	if err != nil {
		return err
	}
	for _, at := range s {
		covered := !all.Contains(at.Addr())
		for _, e := range except {
			prefix, err := netip.ParsePrefix(e)
			if err != nil {
				return err
			}
			covered = covered || prefix.Contains(at.Addr())
		}
		if !covered {
			except = append(except, netip.PrefixFrom(at.Addr(), at.Addr().BitLen()).String())
		}
	}
	return unstructured.SetNestedStringSlice(block, except, "except")
}
