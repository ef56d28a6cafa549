package integration

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/keep"
)

// TestKeep: what kubectl delete -k on an overlay deletes at its first run no longer refuses the deletion of the agents' namespace at the
// second one; the server's copy does.
func TestKeep(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{})
	awaitCopy := func() {
		t.Helper()
		eventually(t, "the copy", func() (bool, error) {
			installed, lasting := policyNamed(keep.Installed), policyNamed(keep.Lasting)
			from, to := bindingNamed(keep.Installed), bindingNamed(keep.Lasting)
			for _, o := range []client.Object{installed, lasting, from, to} {
				if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
					return false, client.IgnoreNotFound(err)
				}
			}
			from.Spec.PolicyName = keep.Lasting
			return cmp.Equal(installed.Spec, lasting.Spec) && cmp.Equal(from.Spec, to.Spec), nil
		})
	}
	remove := func() error {
		return c.Client.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: agents}}, client.DryRunAll)
	}
	awaitCopy()
	for _, o := range []client.Object{policyNamed(keep.Installed), bindingNamed(keep.Installed)} {
		if err := c.Client.Delete(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "only the copy refuses", func() (bool, error) {
		err := remove()
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `namespace "dexorder-agents" stays`) {
			t.Fatalf("the namespace of agents can be deleted: %v", err)
		}
		return strings.Contains(err.Error(), keep.Lasting), nil
	})

	t.Run("rights", func(t *testing.T) {
		server, err := client.New(c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, "lifecycle-webhook")), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		for what, do := range map[string]func(context.Context) error{
			"create":       func(ctx context.Context) error { return server.Create(ctx, policyNamed(keep.Lasting)) },
			"delete":       func(ctx context.Context) error { return server.Delete(ctx, policyNamed(keep.Lasting)) },
			"the original": func(ctx context.Context) error { return server.Patch(ctx, policyNamed(keep.Installed), emptyPatch) },
			"another":      func(ctx context.Context) error { return server.Patch(ctx, policyNamed("another"), emptyPatch) },
		} {
			if err := do(t.Context()); !apierrors.IsForbidden(err) {
				t.Errorf("%s: got %v, want it forbidden", what, err)
			}
		}
	})

	// A server that starts brings back what was taken away, and what was changed.
	if err := c.Client.Delete(t.Context(), bindingNamed(keep.Lasting)); err != nil {
		t.Fatal(err)
	}
	lasting := policyNamed(keep.Lasting)
	c.get(t, lasting)
	for _, o := range []client.Object{
		&admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: keep.Installed}, Spec: lasting.Spec},
		&admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: keep.Installed},
			Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
				PolicyName: keep.Installed, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
			},
		},
	} {
		if err := c.Client.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	loose := client.RawPatch(client.Merge.Type(), []byte(`{"spec": {"validations": [{"expression": "true"}]}}`))
	if err := c.Client.Patch(t.Context(), lasting, loose); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitCopy()
}

var emptyPatch = client.RawPatch(client.Merge.Type(), []byte(`{}`))

func policyNamed(name string) *admissionregistrationv1.ValidatingAdmissionPolicy {
	return &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func bindingNamed(name string) *admissionregistrationv1.ValidatingAdmissionPolicyBinding {
	return &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
