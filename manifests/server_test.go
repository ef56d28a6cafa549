package manifests

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	psaapi "k8s.io/pod-security-admission/api"
	psapolicy "k8s.io/pod-security-admission/policy"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// forEachInstallation runs a test on each rendered installation.
func forEachInstallation(t *testing.T, test func(t *testing.T, in installed)) {
	for _, name := range installations {
		t.Run(name, func(t *testing.T) {
			objects := render(t, name)
			test(t, installed{
				name:       name,
				objects:    objects,
				deployment: as[appsv1.Deployment](t, one(t, objects, "Deployment", "lifecycle-webhook")),
			})
		})
	}
}

func TestImagesAreTagged(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		image := in.container(t).Image
		repository, tag, _ := strings.Cut(image, ":")
		if repository != "ghcr.io/dexorder/lifecycle-webhook" || tag == "" || tag == "latest" {
			t.Errorf("image %q, want ghcr.io/dexorder/lifecycle-webhook with a tag other than latest", image)
		}
	})
}

// The namespace asks for restricted Pod Security, and the server that enforces it on others had better pass.
func TestServerIsRestricted(t *testing.T) {
	evaluator, err := psapolicy.NewEvaluator(psapolicy.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	level := psaapi.LevelVersion{Level: psaapi.LevelRestricted, Version: psaapi.MajorMinorVersion(1, 36)}
	forEachInstallation(t, func(t *testing.T, in installed) {
		template := in.deployment.Spec.Template
		for _, result := range evaluator.EvaluatePod(level, &template.ObjectMeta, &template.Spec) {
			if !result.Allowed {
				t.Errorf("%s: %s", result.ForbiddenReason, result.ForbiddenDetail)
			}
		}
		context := in.container(t).SecurityContext
		if context == nil || context.ReadOnlyRootFilesystem == nil || !*context.ReadOnlyRootFilesystem {
			t.Error("the server's root file system is writable")
		}
	})
}

func TestServerStaysAvailable(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		spec := in.deployment.Spec
		if spec.Replicas == nil || *spec.Replicas < 2 {
			t.Errorf("replicas %v, want two at least", spec.Replicas)
		}
		if got := spec.Strategy.RollingUpdate.MaxUnavailable; got == nil || got.IntValue() != 0 {
			t.Errorf("maxUnavailable %v, want 0: a rollout must not take the last server away", got)
		}
		class := as[schedulingv1.PriorityClass](t, one(t, in.objects, "PriorityClass", spec.Template.Spec.PriorityClassName))
		if never := class.PreemptionPolicy; class.Value < 1_000_000_000 || never == nil || *never != corev1.PreemptNever {
			t.Errorf("priority class %+v, want one before all others of users, which evicts nobody", class)
		}
		container := in.container(t)
		if container.ReadinessProbe == nil || container.ReadinessProbe.HTTPGet.Path != "/readyz" {
			t.Error("no readiness probe of /readyz")
		}
		if container.LivenessProbe == nil || container.LivenessProbe.HTTPGet.Path != "/healthz" {
			t.Error("no liveness probe of /healthz")
		}
		for _, constraint := range spec.Template.Spec.TopologySpreadConstraints {
			if constraint.WhenUnsatisfiable != corev1.ScheduleAnyway {
				t.Errorf("spread over %s is a must: a cluster with one node could not run two", constraint.TopologyKey)
			}
		}
		budget := as[policyv1.PodDisruptionBudget](t, one(t, in.objects, "PodDisruptionBudget", "lifecycle-webhook"))
		if got := budget.Spec.MaxUnavailable; got == nil || got.IntValue() != 1 {
			t.Errorf("the budget lets %v go at a time, want 1", got)
		}
		for _, labels := range []map[string]string{
			spec.Selector.MatchLabels,
			budget.Spec.Selector.MatchLabels,
			as[corev1.Service](t, one(t, in.objects, "Service", "lifecycle-webhook")).Spec.Selector,
		} {
			for key, value := range labels {
				if spec.Template.Labels[key] != value {
					t.Errorf("selector %s=%s misses the server's Pods, labelled %v", key, value, spec.Template.Labels)
				}
			}
		}
	})
}

func TestServiceReachesTheServer(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		service := as[corev1.Service](t, one(t, in.objects, "Service", "lifecycle-webhook"))
		if len(service.Spec.Ports) != 1 || service.Spec.Ports[0].Port != 443 {
			t.Fatalf("service ports %v, want 443 alone", service.Spec.Ports)
		}
		want := service.Spec.Ports[0].TargetPort.StrVal
		if !slices.ContainsFunc(in.container(t).Ports, func(p corev1.ContainerPort) bool {
			return p.Name == want && p.ContainerPort == 8443
		}) {
			t.Errorf("target port %q is not the container's 8443", want)
		}
	})
}

func TestPolicyFile(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		config := as[corev1.ConfigMap](t, one(t, in.objects, "ConfigMap", "lifecycle-policy"))
		content := config.Data["policy.yaml"]
		if _, err := v1alpha1.Decode([]byte(content)); err != nil {
			t.Errorf("policy.yaml: %v", err)
		}
		if diff := cmp.Diff(string(v1alpha1.Example()), content); diff != "" {
			t.Errorf("base/policy.yaml is not the published example any more, copy policy/v1alpha1/example.yaml over it "+
				"(-example +installed):\n%s", diff)
		}

		mount := in.mountOf(t, func(v corev1.Volume) bool {
			return v.ConfigMap != nil && v.ConfigMap.Name == config.Name
		})
		if want := "--policy=" + mount.MountPath + "/policy.yaml"; !slices.Contains(in.container(t).Args, want) {
			t.Errorf("args %q lack %s", in.container(t).Args, want)
		}
	})
}

func TestMountsFollowTheirSource(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		for _, mount := range in.container(t).VolumeMounts {
			if mount.SubPath != "" || mount.SubPathExpr != "" {
				t.Errorf("%s is mounted by subPath, which the kubelet never updates", mount.Name)
			}
			if !mount.ReadOnly {
				t.Errorf("%s is mounted writable", mount.Name)
			}
		}
	})
}

// installed is a rendered installation.
type installed struct {
	name       string
	objects    []*unstructured.Unstructured
	deployment *appsv1.Deployment
}

func (in installed) container(t *testing.T) corev1.Container {
	t.Helper()
	containers := in.deployment.Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("%d containers, want the server alone", len(containers))
	}
	return containers[0]
}

// mountOf is the mount of the one volume that is meant.
func (in installed) mountOf(t *testing.T, meant func(corev1.Volume) bool) corev1.VolumeMount {
	t.Helper()
	for _, volume := range in.deployment.Spec.Template.Spec.Volumes {
		if !meant(volume) {
			continue
		}
		for _, mount := range in.container(t).VolumeMounts {
			if mount.Name == volume.Name {
				return mount
			}
		}
	}
	t.Fatal("no such volume is mounted")
	return corev1.VolumeMount{}
}
