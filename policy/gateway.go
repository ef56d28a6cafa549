package policy

import (
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// The gateway makes agents and brings them back. It faces the network, so it must not be able to destroy anything, whatever
// RBAC was granted: it deletes nothing, and it does not hand an object to the garbage collector, which deletes whatever has
// an owner that does not exist. The one owner that it may name is the agent's own Deployment, with its UID. It adds no
// finalizer, by which a deletion would orphan what it should take along, or never end.
var gateway = Rule{
	ID:          "gateway",
	Summary:     "the gateway deletes nothing and hands nothing to the garbage collector",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Gateway.Enforcement },
	deletions:   true,
	applies:     func(r *Request) bool { return r.Subresource == "" },
	check:       checkGateway,
}

func checkGateway(p *Profile, r *Request) []Violation {
	if !p.isGateway(r) {
		return nil
	}
	if r.Operation == admissionv1.Delete {
		return []Violation{violation("", "the gateway deletes nothing, neither %s %q nor anything else", r.Old.Kind, r.Old.Meta.Name)}
	}
	var found []Violation
	for _, i := range newOwners(r) {
		if full(found) {
			return found
		}
		if v, ok := checkGatewayOwner(r, i); !ok {
			found = append(found, v)
		}
	}
	for i, finalizer := range r.Object.Meta.Finalizers {
		if full(found) {
			return found
		}
		if finalizer == claimProtection && r.Object.Claim != nil {
			continue // The API server adds it to every claim.
		}
		if r.Old == nil || !slices.Contains(r.Old.Meta.Finalizers, finalizer) {
			found = append(found, violation(fmt.Sprintf("metadata.finalizers[%d]", i), "the gateway may not add %q, nor any other",
				finalizer))
		}
	}
	return found
}

// claimProtection keeps a claim while a Pod uses it.
const claimProtection = "kubernetes.io/pvc-protection"

func (p *Profile) isGateway(r *Request) bool { return r.User.Username == p.identities.Gateway }

// newOwners returns the indices of the owner references that are not stored already, as they are.
func newOwners(r *Request) []int {
	var indices []int
	for i, owner := range r.Object.Meta.OwnerReferences {
		had := r.Old != nil && slices.ContainsFunc(r.Old.Meta.OwnerReferences, func(o metav1.OwnerReference) bool {
			return o.UID == owner.UID && o.Name == owner.Name && o.Kind == owner.Kind && o.APIVersion == owner.APIVersion
		})
		if !had {
			indices = append(indices, i)
		}
	}
	return indices
}

func checkGatewayOwner(r *Request, i int) (Violation, bool) {
	owner, agent := r.Object.Meta.OwnerReferences[i], r.Object.Meta.Labels[lifecycle.LabelDeployment]
	field := fmt.Sprintf("metadata.ownerReferences[%d]", i)
	gk := schema.FromAPIVersionAndKind(owner.APIVersion, owner.Kind).GroupKind()
	if r.Object.Deployment != nil || gk != (schema.GroupKind{Group: "apps", Kind: kindDeployment}) || agent == "" || owner.Name != agent {
		return violation(field, "the gateway may not make %s %q the owner; accepted on claims and Services is the Deployment that label %s names",
			Printable(owner.Kind), owner.Name, lifecycle.LabelDeployment), false
	}
	if r.Facts == nil {
		return Violation{}, true
	}
	switch d := r.Facts.Deployments[owner.Name]; {
	case d == nil:
		return violation(field, "Deployment %q does not exist, so that the garbage collector would delete the object; "+
			"create the Deployment first", owner.Name), false
	case d.UID != owner.UID:
		return violation(field+".uid", "is %q, but Deployment %q has %q; the garbage collector would delete the object",
			owner.UID, owner.Name, d.UID), false
	}
	return Violation{}, true
}

// needsOfGateway asks for the Deployments that the gateway newly makes owners.
func (p *Profile) needsOfGateway(r *Request) Needs {
	if !p.isGateway(r) || r.Subresource != "" {
		return Needs{}
	}
	var needs Needs
	for _, i := range newOwners(r) {
		owner := r.Object.Meta.OwnerReferences[i]
		if owner.Kind == kindDeployment && owner.Name == r.Object.Meta.Labels[lifecycle.LabelDeployment] {
			needs.Deployments = append(needs.Deployments, owner.Name)
		}
	}
	slices.Sort(needs.Deployments)
	needs.Deployments = slices.Compact(needs.Deployments)
	return needs
}
