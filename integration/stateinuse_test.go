package integration

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// What an agent keeps in a ConfigMap outlives the Pod that made it: a rollout, a drain, sleep, and a day between two
// writes. It goes when the agent's Deployment has gone and nobody has written to it for an hour.
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

// What something refers to, and what records a release, stays, whoever made it; and where it cannot be read what
// refers to it, all does.
func testReferences(t *testing.T, c *cluster) {
	const ns = "agent-referring"
	r := c.newReaping(t)
	c.roleNamespace(t, ns)
	c.create(t, object("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "things.testing.example.com", `{
		"group": "testing.example.com", "scope": "Namespaced", "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
		"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
			"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}`))
	for _, o := range []*unstructured.Unstructured{
		object("networking.k8s.io/v1", "Ingress", ns, "web", `{"tls": [{"secretName": "of-ingress"}],
			"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}`),
		object("v1", "Service", ns, "plain", `{"clusterIP": "None", "ports": [{"port": 80}]}`, "example.com/tls", "of-service"),
		object("apps/v1", "Deployment", ns, "asleep", `{"replicas": 0, "selector": {"matchLabels": {"app": "asleep"}}, "template": {
			"metadata": {"labels": {"app": "asleep"}, "annotations": {"secret.reloader.stakater.com/reload": "a,of-annotation"}},
			"spec": `+podSpecJSON(t)+`}}`),
		object("storage.k8s.io/v1", "StorageClass", "", "testing", ""),
		object("v1", "PersistentVolume", "", "testing", `{"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"],
			"csi": {"driver": "x.io", "volumeHandle": "1", "nodeStageSecretRef": {"name": "of-volume", "namespace": "`+ns+`"}}}`),
		object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "testing", "",
			"cert-manager.io/inject-ca-from-secret", ns+"/of-webhook"),
	} {
		if o.GetKind() == "StorageClass" {
			o.Object["provisioner"] = "x.io"
			o.Object["parameters"] = map[string]any{"csi.storage.k8s.io/provisioner-secret-name": "of-class"}
		}
		c.create(t, o)
	}
	eventually(t, "Thing", func() (bool, error) {
		err := c.Client.Create(t.Context(), object("testing.example.com/v1", "Thing", ns, "one", `{"any": [{"where": "of-custom-object"}]}`))
		return err == nil, err
	})
	dead := c.inPod(t, ns, "worker-1", "0123")
	secret := func(name string, labels map[string]string) *corev1.Secret {
		s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: labels}, StringData: map[string]string{"a": "b"}}
		if err := dead.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	stays := []client.Object{
		secret("sh.helm.release.v1.app.v1", map[string]string{"owner": "helm"}),
		secret("tfstate-default-state", map[string]string{"tfstate": "true"}),
	}
	for _, name := range []string{
		"of-ingress", "of-service", "of-annotation", "of-class", "of-volume", "of-webhook", "of-custom-object",
	} {
		stays = append(stays, secret(name, nil))
	}
	forgotten := secret("forgotten", nil)

	// The garbage collector takes along what these own.
	anchor := secret("anchor", nil)
	stays = append(stays, anchor)
	owned := object("apps/v1", "Deployment", ns, "owned", `{"replicas": 0, "selector": {"matchLabels": {"app": "owned"}}, "template": {
		"metadata": {"labels": {"app": "owned"}}, "spec": `+podSpecJSON(t)+`}}`)
	owned.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: anchor.Name, UID: anchor.UID}})
	quota := object("v1", "ResourceQuota", ns, "owned", `{"hard": {"services.nodeports": "7"}}`)
	quota.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Secret", Name: forgotten.Name, UID: forgotten.UID}})
	c.create(t, owned)
	c.create(t, quota)

	// As a role has it that an older version has left.
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-reaper-role-namespace"}}
	c.get(t, role)
	rules := role.Rules
	role.Rules = slices.DeleteFunc(slices.Clone(rules), func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "*") })
	if err := c.Client.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	unread := func() bool {
		r.clock.pass(61 * time.Minute)
		leftovers := result(t, r.once(t), "leftovers")
		if leftovers.Error != "" {
			t.Fatalf("leftovers: %s", leftovers.Error)
		}
		return leftovers.Kept["what may refer to it cannot be read"] > 0
	}
	eventually(t, "a pass without rights", func() (bool, error) { return unread(), nil })
	if c.deleting(t, forgotten) || c.orphanedSince(t, forgotten) != "" {
		t.Error("what nobody can tell about was deleted, or counts as an orphan")
	}
	role.Rules = rules
	if err := c.Client.Update(t.Context(), role); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a pass with rights", func() (bool, error) { return !unread(), nil })
	unread()
	c.gone(t, forgotten)
	c.get(t, quota)
	if quota.GetDeletionTimestamp() != nil || len(quota.GetOwnerReferences()) > 0 {
		t.Errorf("what the forgotten one owned has owners %v, and is deleted at %v", quota.GetOwnerReferences(), quota.GetDeletionTimestamp())
	}
	for _, o := range stays {
		if c.deleting(t, o) || c.orphanedSince(t, o) != "" {
			t.Errorf("%s was deleted, or counts as an orphan", o.GetName())
		}
	}
}

// object is one of any kind, with a spec and annotations.
func object(apiVersion, kind, namespace, name, spec string, annotations ...string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind}}
	o.SetNamespace(namespace)
	o.SetName(name)
	if spec != "" {
		var fields map[string]any
		if err := json.Unmarshal([]byte(spec), &fields); err != nil {
			panic(err)
		}
		o.Object["spec"] = fields
	}
	for i := 0; i < len(annotations); i += 2 {
		o.SetAnnotations(map[string]string{annotations[i]: annotations[i+1]})
	}
	return o
}

// podSpecJSON is what a role agent's Pod looks like.
func podSpecJSON(t *testing.T) string {
	t.Helper()
	spec, err := json.Marshal(agent("asleep").Spec.Template.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(spec)
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
		t.Errorf("the reaper's note on %s went by another user's write", o.Name)
	}
}
