//go:build e2e

package e2e

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/manifests"
)

// TestControllerCleanup: without a sidecar, without a right and without a way to the API server an agent ends all the same, by the
// reaper; and with the sidecar back, beside the network policies of user agents, agents delete themselves again. No cluster of these
// tests enforces a NetworkPolicy: what is seen is that the API server takes them, and that agents work beside them. It changes what all
// agents get, and so runs alone.
func TestControllerCleanup(t *testing.T) {
	defer keepEvidence(t)
	plain := composed(t)
	isolation := []string{"../manifests/components/isolation", apiServerComponent(t)}
	isolated := composed(t, isolation...)
	without := composed(t, append(isolation, "../manifests/components/controller-cleanup")...)

	t.Run("without", func(t *testing.T) {
		removed := takeAway(t, plain, without)
		if diff := cmp.Diff([]string{"Role agent-self-delete", "RoleBinding agent-self-delete"}, removed); diff != "" {
			t.Errorf("what the component takes away (-want +got):\n%s", diff)
		}
		add(t, without, plain)
		setPolicy(t, `(?m)^  mode: Inject$`, "  mode: None")
		if mayDelete(t) {
			t.Error("the agents' account may still delete Deployments")
		}
		l := bear(t, "cleanup", withManager("IDLE_TIMEOUT_MINUTES=0.2"))
		if containers := l.pod.Spec.Containers; len(containers) != 1 {
			t.Errorf("the agent's Pod has %d containers, want the agent's alone", len(containers))
		}
		l.expectGone()
	})

	add(t, isolated, plain)
	policy, err := client.NetworkingV1().NetworkPolicies(agentsNamespace).Get(t.Context(), "api-server", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(apiServerAddresses(t), egressOf(policy)); diff != "" {
		t.Errorf("where sidecars find the API server (-want +got):\n%s", diff)
	}
	l := bear(t, "sidecar-is-back")
	if containerNamed(l.pod.Spec, lifecycle.SidecarContainer) == nil {
		t.Fatal("the agent has no sidecar")
	}
	l.leave42()
	l.expectGone()
}

// apiServerComponent prints the component that says to the network policies where the API server is, as docs/install.md does.
func apiServerComponent(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	enter(t, 0, "", "kubectl agents api-server > "+filepath.Join(dir, "kustomization.yaml"))
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, dir)
	if err != nil {
		t.Fatal(err)
	}
	return relative
}

// composed is what the overlay of these tests has with some components.
func composed(t *testing.T, components ...string) []*unstructured.Unstructured {
	t.Helper()
	dir := t.TempDir()
	if err := manifests.Compose(dir, "../manifests/overlays/dev", components, nil); err != nil {
		t.Fatal(err)
	}
	objects, err := manifests.Render(t.Context(), dir, "../tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func objectName(o *unstructured.Unstructured) string { return o.GetKind() + " " + o.GetName() }

// minus are those of some objects that others have not.
func minus(objects, others []*unstructured.Unstructured) []*unstructured.Unstructured {
	return slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		return slices.ContainsFunc(others, func(other *unstructured.Unstructured) bool {
			return objectName(other) == objectName(o) && other.GetNamespace() == o.GetNamespace()
		})
	})
}

// takeAway deletes what one installation has and another one has not, for the length of the test, and returns what that was.
func takeAway(t *testing.T, from, to []*unstructured.Unstructured) []string {
	t.Helper()
	objects := minus(from, to)
	t.Cleanup(func() { apply(t, objects) })
	remove(t, objects)
	names := []string{}
	for _, o := range objects {
		names = append(names, objectName(o))
	}
	slices.Sort(names)
	return names
}

// add applies what one installation has and another one has not, for the length of the test.
func add(t *testing.T, from, to []*unstructured.Unstructured) {
	t.Helper()
	objects := minus(from, to)
	t.Cleanup(func() { remove(t, objects) })
	apply(t, objects)
}

func apply(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	applier, err := manifests.NewApplier(config)
	if err == nil {
		_, err = applier.Apply(context.WithoutCancel(t.Context()), objects)
	}
	if err != nil {
		t.Error(err)
	}
}

// remove deletes objects of the kinds that the components of isolation are made of.
func remove(t *testing.T, objects []*unstructured.Unstructured) {
	t.Helper()
	ctx, options := context.WithoutCancel(t.Context()), metav1.DeleteOptions{}
	for _, o := range objects {
		err := errors.New("is of a kind that is not expected")
		switch o.GetKind() {
		case "NetworkPolicy":
			err = client.NetworkingV1().NetworkPolicies(o.GetNamespace()).Delete(ctx, o.GetName(), options)
		case "Role":
			err = client.RbacV1().Roles(o.GetNamespace()).Delete(ctx, o.GetName(), options)
		case "RoleBinding":
			err = client.RbacV1().RoleBindings(o.GetNamespace()).Delete(ctx, o.GetName(), options)
		}
		if err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("delete %s: %v", objectName(o), err)
		}
	}
}

// mayDelete says whether RBAC lets the account of user agents delete an agent.
func mayDelete(t *testing.T) bool {
	t.Helper()
	review, err := client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: "system:serviceaccount:" + agentsNamespace + ":agent-lifecycle",
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: agentsNamespace, Verb: "delete", Group: "apps", Resource: "deployments", Name: "cleanup",
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}

// egressOf are the ranges that a policy opens.
func egressOf(policy *networkingv1.NetworkPolicy) map[string]bool {
	ranges := map[string]bool{}
	for _, rule := range policy.Spec.Egress {
		for _, to := range rule.To {
			ranges[to.IPBlock.CIDR] = true
		}
	}
	return ranges
}

// apiServerAddresses are those of the API server's Service and of what is behind it, as ranges of one address.
func apiServerAddresses(t *testing.T) map[string]bool {
	t.Helper()
	service, err := client.CoreV1().Services(metav1.NamespaceDefault).Get(t.Context(), "kubernetes", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	endpoints, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(t.Context(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	ranges := map[string]bool{service.Spec.ClusterIP + "/32": true}
	for i := range endpoints.Items {
		for _, e := range endpoints.Items[i].Endpoints {
			for _, address := range e.Addresses {
				ranges[address+"/32"] = true
			}
		}
	}
	return ranges
}
