package manifests

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Objects are applied in the order in which they are rendered, and deleted in the same order. The right to delete takes a role and its
// binding: between the two is everything that confines who has it, so that at no time somebody has it whom nobody judges.
func TestNobodyMayDeleteUnjudged(t *testing.T) {
	position := func(objects []*unstructured.Unstructured, kind, name string) int {
		return slices.IndexFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() == kind && o.GetName() == name })
	}
	forEachInstallation(t, func(t *testing.T, in installed) {
		order := []int{
			position(in.objects, "Namespace", "dexorder-agents"),
			position(in.objects, "Role", "agent-self-delete"),
			position(in.objects, "ValidatingAdmissionPolicy", "agent-self-delete"),
			position(in.objects, "ValidatingAdmissionPolicyBinding", "agent-self-delete"),
			position(in.objects, "ValidatingWebhookConfiguration", "agent-lifecycle"),
			position(in.objects, "RoleBinding", "agent-self-delete"),
			position(in.objects, "Deployment", "lifecycle-webhook"),
		}
		if order[0] < 0 || !slices.IsSorted(order) {
			t.Errorf("namespace, role, policy, its binding, registration, role binding and server are at %v", order)
		}
		if keep := position(in.objects, "ValidatingAdmissionPolicy", "agent-namespace-kept"); keep < order[0] {
			t.Errorf("what keeps the namespace is deleted before the namespace, at %d and %d", keep, order[0])
		}
	})
	removal := render(t, "removal")
	if role, registration := position(removal, "Role", "agent-self-delete"), position(removal, "ValidatingWebhookConfiguration", "agent-lifecycle"); role < 0 || role > registration {
		t.Errorf("removal: role and registration are at %d and %d", role, registration)
	}
}
