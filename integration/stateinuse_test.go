package integration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// What an agent keeps in a ConfigMap outlives the Pod that made it: a rollout, a drain, sleep, and a day between two writes. It goes when
// the agent's Deployment has gone and nobody has written to it for an hour.
func testStateInUse(t *testing.T, c *cluster) {
	const ns = "agent-stateful"
	r := c.newReaping(t)
	c.roleNamespace(t, ns)
	ops := c.liveIn(t, ns, "ops")
	helper := c.liveIn(t, ns, "helper")
	own := c.inPod(t, ns, ops.pod.Name, string(ops.pod.UID))
	state, taken := configMap(ns, "state"), configMap(ns, "taken-over")
	state.Data, taken.Data = map[string]string{"n": "0"}, map[string]string{"n": "0"}
	for _, o := range []client.Object{state, taken} {
		if err := own.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	there := func(when string, objects ...client.Object) {
		t.Helper()
		for _, o := range objects {
			if c.deleting(t, o) {
				t.Fatalf("%s: %T %s was deleted", when, o, o.GetName())
			}
			if since := c.orphanedSince(t, o); since != "" {
				t.Errorf("%s: %T %s counts as an orphan", when, o, o.GetName())
			}
		}
	}
	pass := func() {
		t.Helper()
		for range 2 {
			r.clock.pass(61 * time.Minute)
			if leftovers := result(t, r.once(t), "leftovers"); leftovers.Error != "" {
				t.Fatalf("leftovers: %s", leftovers.Error)
			}
		}
	}

	if err := c.Client.Delete(t.Context(), ops.pod, client.GracePeriodSeconds(0)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another Pod of ops", func() (bool, error) {
		var pods corev1.PodList
		err := c.Client.List(t.Context(), &pods, client.InNamespace(ns), client.MatchingLabels{"app": "ops"})
		return len(pods.Items) == 1 && pods.Items[0].UID != ops.pod.UID, err
	})
	pass()
	there("after the Pod was replaced", state, taken)

	scale := func(o client.Object, replicas string) {
		t.Helper()
		if err := c.Client.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"spec":{"replicas":`+replicas+`}}`))); err != nil {
			t.Fatal(err)
		}
	}
	scale(ops.deployment, "0")
	eventually(t, "end of the Pods of ops", func() (bool, error) {
		var pods corev1.PodList
		err := c.Client.List(t.Context(), &pods, client.InNamespace(ns), client.MatchingLabels{"app": "ops"})
		return len(pods.Items) == 0, err
	})
	pass()
	there("while it sleeps", state, taken)

	if err := c.Client.Delete(t.Context(), ops.deployment, client.PropagationPolicy(metav1.DeletePropagationForeground)); err != nil {
		t.Fatal(err)
	}
	c.gone(t, ops.deployment)
	r.once(t)
	for _, o := range []client.Object{state, taken} {
		if c.orphanedSince(t, o) == "" {
			t.Errorf("%s is no orphan, though its Deployment has gone", o.GetName())
		}
	}
	r.clock.pass(59 * time.Minute)
	c.writtenBy(t, c.inPod(t, ns, helper.pod.Name, string(helper.pod.UID)), taken, r.clock.Now())
	r.clock.pass(2 * time.Minute)
	r.once(t)
	c.gone(t, state)
	there("after another Pod wrote to it", taken)
	pass()
	c.gone(t, taken)
}

// writtenBy has somebody write to a ConfigMap, as if at that time.
func (c *cluster) writtenBy(t *testing.T, who client.Client, o *corev1.ConfigMap, at time.Time) {
	t.Helper()
	err := who.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, []byte(`{"data":{"n":"1"}}`)), client.FieldOwner("helper"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.ManagedFields {
		if o.ManagedFields[i].Manager == "helper" {
			o.ManagedFields[i].Time = &metav1.Time{Time: at}
		}
	}
	o.Data["m"] = "1" // of times alone the API server takes no notice
	if err := who.Update(t.Context(), o, client.FieldOwner("another")); err != nil {
		t.Fatal(err)
	}
	if o.Annotations[lifecycle.AnnotationOrphanedSince] == "" {
		t.Errorf("the reaper's note on %s went by somebody else's write", o.Name)
	}
}
