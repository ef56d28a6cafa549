package main

import (
	"context"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// refusals tries five things that a policy must refuse, and shows what whoever tries reads.
func (d *demo) refusals(ctx context.Context) error {
	pod, err := d.runAgent(ctx)
	if err != nil {
		return err
	}
	d.say("(No controllers run here: the demo made the agent's ReplicaSet and Pod in their names.)")
	attempts := []struct {
		what  string
		rule  string
		issue func(context.Context) error
	}{
		{"a foreign image", "image-allowlist", d.create("agent-bob", func(pod *corev1.PodSpec) {
			pod.Containers[0].Image = "evil.example.com/miner:latest"
		})},
		{"an agent that runs as root", "pod-security", d.create("agent-bob", func(pod *corev1.PodSpec) {
			root, no := int64(0), false
			pod.Containers[0].SecurityContext = &corev1.SecurityContext{RunAsUser: &root, RunAsNonRoot: &no}
		})},
		{"an agent without limits", "resource-limits", d.create("agent-bob", func(pod *corev1.PodSpec) {
			pod.Containers[0].Resources = corev1.ResourceRequirements{}
		})},
		{"a debug container in the running agent", "image-allowlist", func(ctx context.Context) error {
			debugged := pod.DeepCopy()
			// As kubectl debug --profile=restricted makes it: the namespace's Pod Security has nothing to say against it.
			debugged.Spec.EphemeralContainers = []corev1.EphemeralContainer{{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					Name: "debug", Image: "busybox", SecurityContext: pod.Spec.Containers[0].SecurityContext,
				},
			}}
			return d.client.SubResource("ephemeralcontainers").Update(ctx, debugged)
		}},
		{"another image for the running sidecar", "sidecar-integrity", func(ctx context.Context) error {
			patched := pod.DeepCopy()
			for i := range patched.Spec.Containers {
				if patched.Spec.Containers[i].Name == "lifecycle-sidecar" {
					patched.Spec.Containers[i].Image = "ghcr.io/dexorder/agent:v1.4.0"
				}
			}
			return d.client.Patch(ctx, patched, client.MergeFrom(pod))
		}},
	}
	for _, attempt := range attempts {
		err := attempt.issue(ctx)
		if err == nil {
			return fmt.Errorf("%s was admitted", attempt.what)
		}
		_, message, denied := strings.Cut(err.Error(), "denied the request: ")
		if !denied || !strings.Contains(message, attempt.rule) {
			return fmt.Errorf("%s: want a denial by %s, got: %w", attempt.what, attempt.rule, err)
		}
		fmt.Fprintf(d.out, "\n   %s:\n", attempt.what)
		for line := range strings.Lines(message) {
			fmt.Fprint(d.out, "      ", line)
		}
		fmt.Fprintln(d.out)
	}
	return nil
}

// create returns an attempt to create a changed copy of the agent.
func (d *demo) create(name string, change func(*corev1.PodSpec)) func(context.Context) error {
	return func(ctx context.Context) error {
		agent, err := d.readAgent()
		if err != nil {
			return err
		}
		agent.Name = name
		change(&agent.Spec.Template.Spec)
		return d.client.Create(ctx, agent)
	}
}

// runAgent makes the ReplicaSet and the Pod of the agent, as the controllers would.
func (d *demo) runAgent(ctx context.Context) (*corev1.Pod, error) {
	agent, err := d.storedAgent(ctx)
	if err != nil {
		return nil, err
	}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: agent.Name + "-5d8c7b", Namespace: agent.Namespace, Labels: agent.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(agent, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: agent.Spec.Replicas, Selector: agent.Spec.Selector, Template: agent.Spec.Template},
	}
	deployments, err := d.as(controlplane.ServiceAccount(metav1.NamespaceSystem, "deployment-controller"))
	if err != nil {
		return nil, err
	}
	if err := deployments.Create(ctx, set); err != nil {
		return nil, err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: set.Name + "-x2v4q", Namespace: set.Namespace, Labels: set.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(set, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))},
		},
		Spec: set.Spec.Template.Spec,
	}
	replicaSets, err := d.as(controlplane.ServiceAccount(metav1.NamespaceSystem, "replicaset-controller"))
	if err != nil {
		return nil, err
	}
	return pod, replicaSets.Create(ctx, pod)
}

// as returns a client that acts as somebody else.
func (d *demo) as(user rest.ImpersonationConfig) (client.Client, error) {
	return client.New(d.cluster.Impersonate(user), client.Options{})
}
