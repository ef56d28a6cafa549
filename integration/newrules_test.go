package integration

import (
	"bytes"
	"fmt"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestNewRules: a rule that comes into force holds for what is written from then on. The Pods of an agent that was stored
// before come back, also after the server was restarted; its template changes only to what the rule accepts.
func TestNewRules(t *testing.T) {
	c := install(t, controlplane.Options{ControllerManager: true})
	example, err := os.ReadFile(c.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	const rule = "      object-size:\n"
	audited := bytes.Replace(example, []byte(rule), []byte(rule+"        enforcement: audit\n"), 1)
	if bytes.Equal(audited, example) {
		t.Fatal("the example has no rule object-size")
	}
	large := func(name string) *appsv1.Deployment {
		return agent(name, pod(func(spec *corev1.PodSpec) {
			for i := range 1001 {
				spec.Containers[0].Env = append(spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i)})
			}
		}))
	}
	try := func() error { return c.Client.Create(t.Context(), large("try"), client.DryRunAll) }
	c.writePolicyUntil(t, audited, func() bool { return try() == nil })
	c.create(t, large("older"))
	before := c.podOf(t, "older").UID
	c.writePolicyUntil(t, example, func() bool { return try() != nil })
	denied(t, try(), "object-size")

	record := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "dexorder-system", Name: "lifecycle-rules"}}
	const key = "user-agents.object-size"
	since := func() time.Time {
		c.get(t, record)
		at, _ := time.Parse(time.RFC3339, record.Data[key])
		return at
	}
	eventually(t, "record of the rule", func() (bool, error) { return since().After(time.Now()), nil })
	recorded := since()

	drain := func(t *testing.T, pod *corev1.Pod) {
		t.Helper()
		if err := c.Client.Delete(t.Context(), pod, client.GracePeriodSeconds(0)); err != nil {
			t.Fatal(err)
		}
	}
	comesBack := func(t *testing.T) {
		t.Helper()
		old := c.podOf(t, "older")
		drain(t, old)
		eventually(t, "next Pod of the older agent", func() (bool, error) { return c.podOf(t, "older").UID != old.UID, nil })
	}
	restart := func(t *testing.T) {
		t.Helper()
		for _, s := range c.Servers() {
			if err := c.RemoveServer(s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.AddServer(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if now := c.podOf(t, "older").UID; now != before {
		t.Errorf("the older agent was restarted: its Pod was %s and is %s", before, now)
	}
	t.Run("its Pod comes back", comesBack)
	t.Run("its Pod comes back after a restart of the server", func(t *testing.T) {
		restart(t)
		if got := since(); !got.Equal(recorded) {
			t.Errorf("the rule was in force since %s, and is since %s", recorded, got)
		}
		comesBack(t)
	})
	t.Run("its template is judged", func(t *testing.T) {
		patch := client.RawPatch(types.StrategicMergePatchType,
			[]byte(`{"spec":{"template":{"spec":{"containers":[{"name":"agent","image":"ghcr.io/dexorder/agent:v2"}]}}}}`))
		denied(t, c.Client.Patch(t.Context(), agent("older"), patch), "object-size")
	})
	t.Run("an agent from after the rule gets no Pod", func(t *testing.T) {
		c.get(t, record)
		record.Data[key] = "2026-01-01T00:00:00Z" // as if it had been in force when the agent was created
		if err := c.Client.Update(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		restart(t)
		drain(t, c.podOf(t, "older"))
		eventually(t, "refusal of the next Pod", func() (bool, error) {
			d := agent("older")
			c.get(t, d)
			for _, condition := range d.Status.Conditions {
				if condition.Type == appsv1.DeploymentReplicaFailure && condition.Status == corev1.ConditionTrue {
					return bytes.Contains([]byte(condition.Message), []byte("object-size: ")), nil
				}
			}
			return false, nil
		})
	})
	t.Run("service links are injected as false", func(t *testing.T) {
		d := agent("linked", pod(func(spec *corev1.PodSpec) { spec.EnableServiceLinks = ptr(true) }))
		c.create(t, d)
		if links := d.Spec.Template.Spec.EnableServiceLinks; links == nil || *links {
			t.Errorf("enableServiceLinks is stored as %v", links)
		}
		if links := c.podOf(t, "linked").Spec.EnableServiceLinks; links == nil || *links {
			t.Errorf("enableServiceLinks of the Pod is %v", links)
		}
	})
}

// writePolicyUntil writes a policy and waits until it is in force.
func (c *cluster) writePolicyUntil(t *testing.T, policy []byte, inForce func() bool) {
	t.Helper()
	if err := c.WritePolicy(policy); err != nil {
		t.Fatal(err)
	}
	eventually(t, "policy in force", func() (bool, error) { return inForce(), nil })
}
