package integration

import (
	"bytes"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Whether agents get a sidecar can be changed while agents run: none of them is restarted or refused for it.
func TestSidecarMode(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{ControllerManager: true})
	write := func(mode string, newAgentHas bool) {
		t.Helper()
		policy := bytes.Replace(v1alpha1.Example(), []byte("\n  mode: Inject\n"), []byte("\n  mode: "+mode+"\n"), 1)
		if err := c.WritePolicy(policy); err != nil {
			t.Fatal(err)
		}
		eventually(t, "policy with mode "+mode, func() (bool, error) {
			probe := agent("probe")
			err := c.Client.Create(t.Context(), probe, client.DryRunAll)
			return hasSidecar(&probe.Spec.Template.Spec) == newAgentHas, err
		})
	}
	apply := func(name string) *appsv1.Deployment {
		t.Helper()
		var d *appsv1.Deployment
		eventually(t, "update of "+name, func() (bool, error) { // controllers write its status
			live := agent(name)
			c.get(t, live)
			d = agent(name) // which has no injected parts
			d.ResourceVersion = live.ResourceVersion
			err := c.Client.Update(t.Context(), d)
			return err == nil, err
		})
		return d
	}
	change := func(name string) *corev1.PodSpec {
		t.Helper()
		d := agent(name)
		c.get(t, d)
		patch := client.MergeFrom(d.DeepCopy())
		d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
		if err := c.Client.Patch(t.Context(), d, patch); err != nil {
			t.Fatal(err)
		}
		return &d.Spec.Template.Spec
	}
	same := func(name string, d *appsv1.Deployment, want bool) {
		t.Helper()
		var sets appsv1.ReplicaSetList
		if err := c.Client.List(t.Context(), &sets, client.InNamespace(agents), client.MatchingLabels{"app": name}); err != nil {
			t.Fatal(err)
		}
		if hasSidecar(&d.Spec.Template.Spec) != want || len(sets.Items) != 1 {
			t.Errorf("%s applied again: sidecar %t, want %t; %d ReplicaSets, want 1", name, hasSidecar(&d.Spec.Template.Spec), want, len(sets.Items))
		}
	}
	again := func(name string, want bool) {
		t.Helper()
		old := c.podOf(t, name)
		if err := c.Client.Delete(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		var next *corev1.Pod
		eventually(t, "next Pod of "+name, func() (bool, error) {
			next = c.podOf(t, name)
			return next.UID != old.UID, nil
		})
		if hasSidecar(&next.Spec) != want {
			t.Errorf("the next Pod of %s: sidecar %t, want %t", name, !want, want)
		}
	}

	c.create(t, agent("with"))
	write("None", false)
	same("with", apply("with"), true)
	again("with", true)
	c.create(t, agent("without"))
	if p := c.podOf(t, "without"); hasSidecar(&p.Spec) || p.Spec.ShareProcessNamespace != nil || len(p.Spec.Containers[0].RestartPolicyRules) > 0 {
		t.Errorf("a Pod without a sidecar: %+v", p.Spec)
	}
	forged := agent("forged", pod(func(spec *corev1.PodSpec) {
		own := spec.Containers[0]
		own.Name = lifecycle.SidecarContainer
		spec.Containers = append(spec.Containers, own)
	}))
	c.create(t, forged)
	if hasSidecar(&forged.Spec.Template.Spec) {
		t.Error("a sidecar of a user's own was let in")
	}
	if changed := change("with"); hasSidecar(changed) || len(changed.Volumes) != 1 || len(changed.Containers[0].RestartPolicyRules) > 0 {
		t.Errorf("after a change: %+v", changed)
	}

	write("Inject", true)
	same("without", apply("without"), false)
	again("without", false)
	if !hasSidecar(change("without")) {
		t.Error("after a change there is no sidecar")
	}
}

func hasSidecar(spec *corev1.PodSpec) bool {
	for i := range spec.Containers {
		if spec.Containers[i].Name == lifecycle.SidecarContainer {
			return true
		}
	}
	return false
}
