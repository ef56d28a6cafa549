package archive

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// LeftOut is something of a namespace that its archive does not hold, and that restoring it does not bring back.
type LeftOut struct {
	// Kind is the object's kind, with its API group after a dot unless the archive holds other objects of that kind.
	Kind string `json:"kind"`

	// Name is the object's. It is empty where it is not known whether there were objects of the kind.
	Name string `json:"name,omitempty"`

	// Reason is a clause for people.
	Reason string `json:"reason"`
}

// String names what is left out and says why.
func (l LeftOut) String() string {
	if l.Name == "" {
		return l.Kind + ": " + l.Reason
	}
	return l.Kind + " " + l.Name + ": " + l.Reason
}

func sortLeftOut(all []LeftOut) {
	slices.SortFunc(all, func(a, b LeftOut) int {
		if a.Kind != b.Kind {
			return strings.Compare(a.Kind, b.Kind)
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// maxLogged bounds how much of what is left out one line of the log names. The archive lists all of it.
const maxLogged = 50

// logged is what one line of the log says of what is left out.
func logged(all []LeftOut) []string {
	var lines []string
	for i, l := range all {
		if i == maxLogged {
			return append(lines, fmt.Sprintf("and %d more", len(all)-i))
		}
		lines = append(lines, l.String())
	}
	return lines
}

// madeAnew says whether every namespace gets the object by itself, exactly as it is.
func madeAnew(o *unstructured.Unstructured) bool {
	return madeByControllers[o.GetKind()] == o.GetName() && !changedAccount(o)
}

// changedAccount says whether the ServiceAccount that Kubernetes makes in every namespace holds more than Kubernetes
// put there.
func changedAccount(o *unstructured.Unstructured) bool {
	if o.GetKind() != "ServiceAccount" {
		return false
	}
	for _, field := range []string{"imagePullSecrets", "automountServiceAccountToken", "secrets"} {
		if _, has := o.Object[field]; has {
			return true
		}
	}
	return len(o.GetLabels())+len(o.GetAnnotations()) > 0
}

// whyLeftOut says why an object of a kind that archives hold is not kept; "" if it is. Claims are kept whatever
// controls them, and even if they are being deleted: the controller's end, or its deletion of the claim, must not
// take the data with it.
func whyLeftOut(o *unstructured.Unstructured) string {
	if o.GetKind() == kindClaim && claimIn(o).volume != "" {
		return ""
	}
	switch controller := metav1.GetControllerOf(o); {
	case madeByControllers[o.GetKind()] == o.GetName():
		return "every namespace gets one by itself; what was added to this one is not kept"
	case o.GetDeletionTimestamp() != nil:
		return "it was being deleted"
	case controller != nil && o.GetKind() != kindClaim:
		return controller.Kind + " " + controller.Name + " controls it"
	}
	switch o.GetKind() {
	case kindSecret:
		if secretType, _, _ := unstructured.NestedString(o.Object, "type"); secretType == tokenSecrets {
			return "it is the token of a ServiceAccount that will have another UID"
		}
	case "Job":
		if finished(o) {
			return "it has finished, and would run once more"
		}
	}
	return ""
}

// whyScratch says why a claim is not kept although it has a volume: Kubernetes made it for an ephemeral volume of a
// Pod and deletes it with the Pod, so that nothing in it was meant to outlive that. "" stands for any other claim,
// and for one of whose Pod nothing is known.
func (a *Archive) whyScratch(ctx context.Context, claim *unstructured.Unstructured) (string, error) {
	controller := metav1.GetControllerOf(claim)
	if controller == nil || controller.APIVersion != "v1" || controller.Kind != "Pod" {
		return "", nil
	}
	pod, err := a.options.Core.Pods(claim.GetNamespace()).Get(ctx, controller.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("claim %s: its Pod %s: %w", claim.GetName(), controller.Name, err)
	}
	if pod.UID != controller.UID || !hasEphemeral(pod, claim.GetName()) {
		return "", nil
	}
	return "it is the scratch space of Pod " + pod.Name + " (an ephemeral volume), and goes with it", nil
}

// hasEphemeral says whether a claim has the name that Kubernetes gives to that of one of the Pod's ephemeral volumes.
func hasEphemeral(pod *corev1.Pod, claim string) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		return v.Ephemeral != nil && pod.Name+"-"+v.Name == claim
	})
}
