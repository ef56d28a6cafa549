package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestPaths sends one refused and one admitted change down every path by which an agent's Deployment or Pod is stored.
func TestPaths(t *testing.T) {
	c := install(t, controlplane.Options{ControllerManager: true})
	d := agent("alice")
	c.create(t, d)
	running := c.podOf(t, "alice")
	const good, bad = "ghcr.io/dexorder/agent:v2", "docker.io/evil/agent:v2"

	set := func(image string) func(*appsv1.Deployment) {
		return pod(func(spec *corev1.PodSpec) { spec.Containers[0].Image = image })
	}
	patch := func(o client.Object, kind types.PatchType, format string) func(*testing.T, string, ...client.PatchOption) error {
		return func(t *testing.T, image string, opts ...client.PatchOption) error {
			return c.Client.Patch(t.Context(), o.DeepCopyObject().(client.Object), client.RawPatch(kind, fmt.Appendf(nil, format, image)), opts...)
		}
	}
	merge := func(t *testing.T, image string, opts ...client.PatchOption) error {
		var now appsv1.Deployment
		now.Namespace, now.Name = agents, "alice"
		c.get(t, &now)
		containers := now.Spec.Template.Spec.Containers
		containers[0].Image = image
		body, err := json.Marshal(map[string]any{"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": containers}}}})
		if err != nil {
			t.Fatal(err)
		}
		return c.Client.Patch(t.Context(), &now, client.RawPatch(types.MergePatchType, body), opts...)
	}
	for _, path := range []struct {
		name   string
		change func(t *testing.T, image string) error
	}{
		{"create", func(t *testing.T, image string) error {
			return c.Client.Create(t.Context(), agent("created", set(image)))
		}},
		{"create dry", func(t *testing.T, image string) error {
			return c.Client.Create(t.Context(), agent("dry", set(image)), client.DryRunAll)
		}},
		{"replace", func(t *testing.T, image string) error {
			return c.Client.Update(t.Context(), agent("alice", set(image)))
		}},
		{"JSON patch", func(t *testing.T, image string) error {
			return patch(d, types.JSONPatchType, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":%q}]`)(t, image)
		}},
		{"merge patch", func(t *testing.T, image string) error { return merge(t, image) }},
		{"merge patch dry", func(t *testing.T, image string) error { return merge(t, image, client.DryRunAll) }},
		{"strategic patch", func(t *testing.T, image string) error {
			return patch(d, types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"agent","image":%q}]}}}}`)(t, image)
		}},
		{"apply", func(t *testing.T, image string) error { return c.apply(t, agent("alice", set(image))) }},
		{"running Pod", func(t *testing.T, image string) error {
			return patch(running, types.StrategicMergePatchType, `{"spec":{"containers":[{"name":"agent","image":%q}]}}`)(t, image)
		}},
		{"ephemeral container", func(t *testing.T, image string) error {
			now := &corev1.Pod{}
			if err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(running), now); err != nil {
				t.Fatal(err)
			}
			now.Spec.EphemeralContainers = append(now.Spec.EphemeralContainers, corev1.EphemeralContainer{
				EphemeralContainerCommon: corev1.EphemeralContainerCommon{
					Name: "debug", Image: image, SecurityContext: now.Spec.Containers[0].SecurityContext,
				},
			})
			return c.Client.SubResource("ephemeralcontainers").Update(t.Context(), now)
		}},
	} {
		t.Run(path.name, func(t *testing.T) {
			// A change of the template makes another Pod; this one must be there for those who change it.
			if path.name == "running Pod" || path.name == "ephemeral container" {
				*running = *c.podOf(t, "alice")
			}
			denied(t, path.change(t, bad), "image-allowlist")
			if err := path.change(t, good); err != nil {
				t.Errorf("an allowed image: %v", err)
			}
		})
	}

	t.Run("resize", func(t *testing.T) {
		current := c.podOf(t, "alice")
		resize := func(container, memory string) error {
			now := current.DeepCopy()
			for i := range now.Spec.Containers {
				if r := &now.Spec.Containers[i].Resources; now.Spec.Containers[i].Name == container {
					r.Limits["memory"], r.Requests["memory"] = resource.MustParse(memory), resource.MustParse(memory)
				}
			}
			return c.Client.SubResource("resize").Update(t.Context(), now)
		}
		denied(t, resize("agent", "1Ei"), "resource-limits")
		denied(t, resize("lifecycle-sidecar", "1Gi"), "sidecar-integrity")
		if err := resize("agent", "256Mi"); err != nil {
			t.Errorf("within the bounds: %v", err)
		}
	})
	t.Run("scale", func(t *testing.T) {
		scale := func(replicas int32) error {
			return c.Client.SubResource("scale").Update(t.Context(), d,
				client.WithSubResourceBody(&autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: replicas}}))
		}
		denied(t, scale(2), "replicas")
		for _, replicas := range []int32{0, 1} {
			if err := scale(replicas); err != nil {
				t.Errorf("to %d: %v", replicas, err)
			}
		}
	})
}

// apply is a server-side apply of an object as a user would write it.
func (c *cluster) apply(t *testing.T, d *appsv1.Deployment) error {
	t.Helper()
	d.APIVersion, d.Kind = "apps/v1", "Deployment"
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
	if err != nil {
		t.Fatal(err)
	}
	delete(content, "status")
	return c.Client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(&unstructured.Unstructured{Object: content}),
		client.FieldOwner("test"), client.ForceOwnership)
}
