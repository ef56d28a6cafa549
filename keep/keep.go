// Package keep has the protection of the agents' namespace outlive the installation.
//
// An admission policy of the installation refuses the deletion of that namespace, which kubectl delete -k on an overlay asks for. The same
// command deletes the policy, too, so that a second one would find nothing in its way, and delete every agent with its storage. So the
// server keeps a copy of the policy under a name that is in no manifest.
package keep

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissionregistrationclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
)

// The names of the admission policies, and of their bindings.
const (
	// Installed comes and goes with the installation.
	Installed = "agent-namespace-kept"

	// Lasting is its copy. Nobody deletes it but whoever means it.
	Lasting = "agent-namespace-kept-after-removal"
)

const (
	fieldManager = "lifecycle-webhook"

	// interval is how often the copy is compared, retry how soon after that could not be done.
	interval, retry = 10 * time.Minute, 15 * time.Second

	callTimeout = 10 * time.Second

	description = "Has agents outlive a repeated removal of agent-lifecycle. Made by lifecycle-webhook, after the policy " + Installed +
		"; delete it and its binding when the namespace of agents is gone."
)

// Keeper keeps the copy as the installed policy is. Several may do so at once.
type Keeper struct {
	client admissionregistrationclient.AdmissionregistrationV1Interface
	log    *slog.Logger
	failed atomic.Pointer[error]
}

// New returns a Keeper. It needs the rights to get Installed, and to create and patch Lasting.
func New(client admissionregistrationclient.AdmissionregistrationV1Interface, log *slog.Logger) *Keeper {
	k := &Keeper{client: client, log: log}
	k.note(fmt.Errorf("admission policy %q was not looked at yet", Installed))
	return k
}

// Run copies until ctx ends. It never fails: until the installation is removed, agents are as safe without the copy.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		wait := interval
		err := k.Copy(ctx)
		if ctx.Err() != nil {
			return nil
		}
		k.note(err)
		if err != nil {
			wait = retry
			k.log.WarnContext(ctx, "A repeated removal of the system would not find the agents' namespace protected", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Check returns why the copy may be missing or old; nil if it is as it should be.
func (k *Keeper) Check() error { return *k.failed.Load() }

func (k *Keeper) note(err error) { k.failed.Store(&err) }

// Copy makes the copy, or makes it what the installed policy is now.
func (k *Keeper) Copy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	policy, err := k.client.ValidatingAdmissionPolicies().Get(ctx, Installed, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read ValidatingAdmissionPolicy %q: %w", Installed, err)
	}
	binding, err := k.client.ValidatingAdmissionPolicyBindings().Get(ctx, Installed, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read ValidatingAdmissionPolicyBinding %q: %w", Installed, err)
	}
	policyPatch, err := copyOf("ValidatingAdmissionPolicy", &policy.ObjectMeta, policy.Spec)
	if err != nil {
		return err
	}
	spec := binding.Spec
	spec.PolicyName = Lasting
	bindingPatch, err := copyOf("ValidatingAdmissionPolicyBinding", &binding.ObjectMeta, spec)
	if err != nil {
		return err
	}
	// By an apply, RBAC can bind a create to a name.
	options := metav1.PatchOptions{FieldManager: fieldManager, Force: new(true)}
	if _, err := k.client.ValidatingAdmissionPolicies().Patch(ctx, Lasting, types.ApplyPatchType, policyPatch, options); err != nil {
		return fmt.Errorf("apply ValidatingAdmissionPolicy %q: %w", Lasting, err)
	}
	if _, err := k.client.ValidatingAdmissionPolicyBindings().Patch(ctx, Lasting, types.ApplyPatchType, bindingPatch, options); err != nil {
		return fmt.Errorf("apply ValidatingAdmissionPolicyBinding %q: %w", Lasting, err)
	}
	return nil
}

// copyOf leaves out what says that kubectl or Helm manages the original: neither shall take the copy for its own.
func copyOf(kind string, original *metav1.ObjectMeta, spec any) ([]byte, error) {
	labels := maps.Clone(original.Labels)
	delete(labels, "app.kubernetes.io/managed-by")
	return json.Marshal(map[string]any{
		"apiVersion": admissionregistrationv1.SchemeGroupVersion.String(),
		"kind":       kind,
		"metadata": map[string]any{
			"name": Lasting, "labels": labels, "annotations": map[string]string{"kubernetes.io/description": description},
		},
		"spec": spec,
	})
}
