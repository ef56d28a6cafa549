package integration

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// TestLeftOut: one namespace is left out of a prefix, by the policy and by the registrations and admission policies.
func TestLeftOut(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	text := bytes.Replace(v1alpha1.Example(), []byte("# except: [agent-lab]"), []byte("except: [agent-lab]"), 1)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := installPolicy(t, controlplane.Options{}, file)
	for _, name := range []string{"agent-lab", "agent-ceo"} {
		c.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"agent-role": strings.TrimPrefix(name, "agent-"), "org": "dexorder"},
		}})
	}
	foreign := func(namespace, name string) *appsv1.Deployment {
		d := agent(name)
		d.Namespace = namespace
		d.Spec.Template.Spec.Containers[0].Image = "docker.io/any/thing"
		return d
	}

	t.Run("refusal names the prefix", func(t *testing.T) {
		err := c.Client.Create(t.Context(), foreign("agent-ceo", "one"))
		denied(t, err, "image-allowlist")
		const want = `refused by policy, profile "role-agents", whose prefix "agent-" covers namespace "agent-ceo":`
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got: %v", want, err)
		}
	})
	t.Run("left out by the policy", func(t *testing.T) {
		d := foreign("agent-lab", "one")
		c.create(t, d)
		if n := len(d.Spec.Template.Spec.Containers); n != 1 {
			t.Errorf("has %d containers, want the user's alone", n)
		}
	})
	c.leaveOut(t, "agent-lab")
	for _, s := range c.Servers() {
		if err := c.RemoveServer(s); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("nothing waits while no server runs", func(t *testing.T) {
		// The API server learns of the conditions by watch.
		eventually(t, "create without a server", func() (bool, error) {
			err := c.Client.Create(t.Context(), foreign("agent-lab", "two"))
			return err == nil, err
		})
		if err := c.Client.Create(t.Context(), foreign("agent-ceo", "two")); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
			t.Errorf("elsewhere: want a failed call, got: %v", err)
		}
	})
	t.Run("the reaper touches nothing", func(t *testing.T) {
		reaper, err := client.New(c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, "lifecycle-webhook")), client.Options{})
		if err != nil {
			t.Fatal(err)
		}
		mark := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"lifecycle.dexorder.io/reaping":"2026-01-01T00:00:00Z"}}}`))
		eventually(t, "refusal of a mark", func() (bool, error) {
			err := reaper.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-lab"}}, mark, client.DryRunAll)
			return err != nil && strings.Contains(err.Error(), "the reaper touches no namespace that the policy leaves out"), err
		})
		if err := reaper.Patch(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-ceo"}}, mark, client.DryRunAll); err != nil {
			t.Errorf("elsewhere: %v", err)
		}
	})
	t.Run("what was noted of its idleness is taken back", func(t *testing.T) {
		lab := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-lab"}}
		noted := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"last-pod-activity":"2026-01-01T00:00:00Z",
			"lifecycle.dexorder.io/reaping":"2026-01-01T00:00:00Z","lifecycle.dexorder.io/idle-since":"2026-01-01T00:00:00Z"}}}`))
		if err := c.Client.Patch(t.Context(), lab, noted); err != nil {
			t.Fatal(err)
		}
		if _, err := c.AddServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a pass that takes the mark back", func() (bool, error) {
			c.get(t, lab)
			return lab.Annotations["lifecycle.dexorder.io/reaping"] == "" && lab.Annotations["lifecycle.dexorder.io/idle-since"] == "", nil
		})
		if lab.DeletionTimestamp != nil {
			t.Error("it is deleted")
		}
	})
}

// leaveOut changes the registrations and admission policies as docs/install.md says.
func (c *cluster) leaveOut(t *testing.T, namespace string) {
	t.Helper()
	condition := admissionregistrationv1.MatchCondition{Name: "not-left-out", Expression: `!(request.namespace in ["` + namespace + `"])`}
	set := func(conditions []admissionregistrationv1.MatchCondition) {
		t.Helper()
		if conditions[1].Name != condition.Name {
			t.Fatalf("the second condition is %q", conditions[1].Name)
		}
		conditions[1] = condition
	}
	update := func(o client.Object, change func()) {
		t.Helper()
		c.get(t, o)
		change()
		if err := c.Client.Update(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	named := metav1.ObjectMeta{Name: "agent-lifecycle"}
	mutating := &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: named}
	update(mutating, func() { set(mutating.Webhooks[0].MatchConditions); set(mutating.Webhooks[1].MatchConditions) })
	validating := &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: named}
	update(validating, func() { set(validating.Webhooks[0].MatchConditions) })
	for _, name := range []string{"agent-self-delete", "agent-namespace-reaping"} {
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		update(p, func() { set(p.Spec.MatchConditions) })
	}
	for _, name := range []string{"agent-reaper-writes", "agent-reaper-deletes"} {
		p := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
		update(p, func() { p.Spec.Variables[0].Expression = `["` + namespace + `"]` })
	}
}
