package integration

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/policy"
)

// TestRules sends every rule something that it refuses, through the API server.
func TestRules(t *testing.T) {
	c := install(t, controlplane.Options{ControllerManager: true})
	create := func(o client.Object) func(*testing.T) error {
		return func(t *testing.T) error { return c.Client.Create(t.Context(), o) }
	}
	container := func(change func(*corev1.Container)) func(*appsv1.Deployment) {
		return pod(func(spec *corev1.PodSpec) { change(&spec.Containers[0]) })
	}
	violations := map[string]func(*testing.T) error{
		"agent-container": create(agent("two", pod(func(spec *corev1.PodSpec) {
			second := spec.Containers[0]
			spec.Containers[0].Name, second.Name = "one", "two"
			spec.Containers = append(spec.Containers, second)
		}))),
		"identity":        create(longNamed("name-" + strings.Repeat("x", 60))),
		"image-allowlist": create(agent("foreign", container(func(c *corev1.Container) { c.Image = "docker.io/evil/agent" }))),
		"pod-security":    create(agent("network", pod(func(spec *corev1.PodSpec) { spec.HostNetwork = true }))),
		"read-only-rootfs": create(agent("writes", container(func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr(false)}
		}))),
		"recreate-strategy": func(t *testing.T) error {
			// Injection sets the strategy, and only a webhook behind ours could undo that.
			return c.behindInjection(t, agent("rolling"))
		},
		"references": create(agent("nosy", container(func(c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "alice-secrets"}}}}
		}))),
		"replicas":        create(agent("many", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr(int32(2)) })),
		"reserved-uids":   create(agent("sidecars", container(func(c *corev1.Container) { c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr(int64(64042))} }))),
		"resource-limits": create(agent("hungry", container(func(c *corev1.Container) { c.Resources.Limits["memory"] = resource.MustParse("1e100") }))),
		"service-account": create(agent("other", pod(func(spec *corev1.PodSpec) { spec.ServiceAccountName = "default" }))),
		"sidecar-integrity": create(agent("exits", container(func(c *corev1.Container) {
			c.TerminationMessagePath = "/var/run/agent/exit_code"
		}))),
		"service-links": func(t *testing.T) error { return c.behindInjection(t, agent("linked")) },
		"object-size": create(agent("large", container(func(c *corev1.Container) {
			for i := range 1001 {
				c.Env = append(c.Env, corev1.EnvVar{Name: "V" + strconv.Itoa(i)})
			}
		}))),
		"claims": func(t *testing.T) error {
			copied := claim("copy", "eve")
			copied.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "bob-data"}
			return create(copied)(t)
		},
		"gateway": func(t *testing.T) error {
			d := agent("made")
			c.create(t, d)
			return c.gateway(t).Delete(t.Context(), d)
		},
		"self-delete": func(t *testing.T) error {
			l := c.live(t, "crashing")
			l.exits(t, 1)
			agent, err := client.New(c.judged(l.pod.Spec.ServiceAccountName, l.pod, string(l.pod.UID)), client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return agent.Delete(t.Context(), l.deployment)
		},
		"terminating": func(t *testing.T) error {
			d := agent("leaving")
			d.Finalizers = []string{"example.com/hold"}
			c.create(t, d)
			if err := c.Client.Delete(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.release(t, d) })
			// The deployment controller writes its status beside this.
			return retry.RetryOnConflict(retry.DefaultRetry, func() error {
				c.get(t, d)
				d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:v2"
				return c.Client.Update(t.Context(), d)
			})
		},
		"volumes": func(t *testing.T) error {
			c.create(t, claim("bob-data", "bob"))
			return create(agent("alice", pod(func(spec *corev1.PodSpec) {
				spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
					PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "bob-data"},
				}}}
			})))(t)
		},
		"workload-kind": create(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "bare"},
			Spec:       restrictedPod(),
		}),
	}
	for _, rule := range policy.Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			violate, ok := violations[rule.ID]
			if !ok {
				t.Fatal("there is nothing here for this rule to refuse")
			}
			denied(t, violate(t), rule.ID)
		})
		delete(violations, rule.ID)
	}
	if len(violations) > 0 {
		t.Errorf("there are no rules %q", slices.Sorted(maps.Keys(violations)))
	}

	t.Run("forged owner", func(t *testing.T) {
		d := agent("victim")
		c.create(t, d)
		owner := c.podOf(t, "victim").OwnerReferences
		forged := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: "victim-forged", OwnerReferences: owner},
			Spec:       restrictedPod(),
		}
		denied(t, c.Client.Create(t.Context(), forged), "workload-kind")

		forged.Name, forged.ResourceVersion = "victim-nobody", ""
		forged.OwnerReferences[0].UID = types.UID("11111111-2222-3333-4444-555555555555")
		denied(t, c.as(t, "replicaset-controller").Create(t.Context(), forged), "workload-kind")
	})
	t.Run("own claim", func(t *testing.T) {
		mount := pod(func(spec *corev1.PodSpec) {
			spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "carol-data"},
			}}}
		})
		c.create(t, agent("carol", mount)) // before the claim is there
		c.create(t, claim("carol-data", "carol"))
		c.podOf(t, "carol")
		denied(t, c.Client.Create(t.Context(), agent("carol2", mount)), "volumes")
	})
	t.Run("uncovered namespace", func(t *testing.T) {
		d := agent("free")
		d.Namespace = metav1.NamespaceDefault
		d.Spec.Template.Spec.Containers[0].Image = "docker.io/any/thing"
		c.create(t, d)
		if n := len(d.Spec.Template.Spec.Containers); n != 1 {
			t.Errorf("has %d containers, want the user's alone", n)
		}
	})
}

// behindInjection creates an object as if the mutating registration were not there: another webhook, or a policy, may
// change an object after ours.
func (c *cluster) behindInjection(t *testing.T, o client.Object) error {
	t.Helper()
	var config admissionregistrationv1.MutatingWebhookConfiguration
	if err := c.Client.Get(t.Context(), client.ObjectKey{Name: "agent-lifecycle"}, &config); err != nil {
		t.Fatal(err)
	}
	was := config.Webhooks[0].Rules
	set := func(rules []admissionregistrationv1.RuleWithOperations) {
		t.Helper()
		config.Webhooks[0].Rules = rules
		if err := c.Client.Update(t.Context(), &config); err != nil {
			t.Fatal(err)
		}
	}
	set(nil)
	defer set(was)
	// The API server learns of it by watch: until then the object is injected and admitted, dry.
	var err error
	eventually(t, "create without injection", func() (bool, error) {
		err = c.Client.Create(t.Context(), o.DeepCopyObject().(client.Object), client.DryRunAll)
		return err != nil, err
	})
	return err
}

// release removes what holds a deleted object.
func (c *cluster) release(t *testing.T, d *appsv1.Deployment) {
	t.Helper()
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))
	if err := c.Client.Patch(context.WithoutCancel(t.Context()), d, patch); err != nil {
		t.Errorf("removing a finalizer: %v", err)
	}
}

// longNamed is an agent whose name fits no label; its own labels are shorter.
func longNamed(name string) *appsv1.Deployment {
	d := agent("short")
	d.Name = name
	return d
}

// restrictedPod is a Pod that the namespace's Pod Security has nothing to say against.
func restrictedPod() corev1.PodSpec {
	spec := agent("any").Spec.Template.Spec
	spec.Containers[0].SecurityContext = &corev1.SecurityContext{
		AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true), RunAsNonRoot: ptr(true), RunAsUser: ptr(int64(1000)),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	return spec
}

func claim(name, owner string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: agents, Name: name, Labels: map[string]string{"lifecycle.dexorder.io/deployment": owner}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
		},
	}
}
