package integration

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/keys"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// TestActivityKey: the servers make one key by the rights of the manifests, and tell it agents that are new or change. A re-apply
// restarts none, and a further server changes nothing.
func TestActivityKey(t *testing.T) {
	c := install(t, controlplane.Options{})
	secret := &corev1.Secret{}
	name := client.ObjectKey{Namespace: installation.SystemNamespace, Name: keys.SecretName}
	eventually(t, "the Secret", func() (bool, error) { return c.Client.Get(t.Context(), name, secret) == nil, nil })
	variable := func(d *appsv1.Deployment, name string) corev1.EnvVar {
		i, err := workload.AgentContainer(&d.Spec.Template)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range d.Spec.Template.Spec.Containers[i].Env {
			if e.Name == name {
				return e
			}
		}
		return corev1.EnvVar{}
	}
	public := string(secret.Data[keys.ActivityPublic])
	eventually(t, "agents are told", func() (bool, error) {
		probe := agent("probe")
		err := c.Client.Create(t.Context(), probe, client.DryRunAll)
		return variable(probe, lifecycle.EnvActivityKey).Value == public && public != "", err
	})
	d := agent("alice")
	c.create(t, d)
	if from := variable(d, lifecycle.EnvActivityAudience).ValueFrom; from == nil || from.FieldRef == nil || from.FieldRef.FieldPath != "metadata.uid" {
		t.Errorf("the audience is %v", from)
	}
	if _, err := c.AddServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Client.Update(t.Context(), agent("alice")); err != nil {
		t.Fatal(err)
	}
	now := agent("alice")
	c.get(t, now)
	if diff := cmp.Diff(d.Spec.Template, now.Spec.Template); diff != "" {
		t.Errorf("the agent would be restarted (-before +after):\n%s", diff)
	}
	again := &corev1.Secret{}
	if err := c.Client.Get(t.Context(), name, again); err != nil {
		t.Fatal(err)
	}
	if again.UID != secret.UID || again.ResourceVersion != secret.ResourceVersion {
		t.Error("the Secret was changed")
	}
}
