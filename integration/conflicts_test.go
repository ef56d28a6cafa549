package integration

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// TestConflicts: what a user writes and an injected part may be invalid beside each other. The API server judges that
// before it asks for a verdict, and would refuse a field that the user never wrote. The refusal names what the user
// did write.
func TestConflicts(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{})
	quantities := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{"cpu": resource.MustParse(cpu), "memory": resource.MustParse(memory)}
	}
	block := func(volume string) func(*corev1.PodSpec) {
		return func(spec *corev1.PodSpec) {
			spec.Volumes = []corev1.Volume{{Name: volume, VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
				VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: corev1.PersistentVolumeClaimSpec{
					VolumeMode: ptr(corev1.PersistentVolumeBlock), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
					Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
				}},
			}}}}
			spec.Containers[0].VolumeDevices = []corev1.VolumeDevice{{Name: volume, DevicePath: "/var/run/agent"}}
		}
	}
	for _, tc := range []struct {
		name       string
		change     func(*appsv1.Deployment)
		rule, says string
	}{
		{"windows", pod(func(spec *corev1.PodSpec) { spec.OS = &corev1.PodOS{Name: corev1.Windows} }),
			"workload-kind", `spec.template.spec.os.name: "windows" asks for Windows, but what runs here runs on Linux; leave it out`},
		{"windows-host-process", pod(func(spec *corev1.PodSpec) {
			spec.HostNetwork = true
			spec.SecurityContext = &corev1.PodSecurityContext{WindowsOptions: &corev1.WindowsSecurityContextOptions{HostProcess: ptr(true)}}
		}), "workload-kind", "spec.template.spec.securityContext.windowsOptions.hostProcess"},
		{"windows-nodes", pod(func(spec *corev1.PodSpec) { spec.NodeSelector = map[string]string{corev1.LabelOSStable: "windows"} }),
			"workload-kind", `spec.template.spec.nodeSelector[kubernetes.io/os]: "windows" asks for Windows`},
		{"host-pid", pod(func(spec *corev1.PodSpec) { spec.HostPID = true }),
			"sidecar-integrity", "spec.template.spec.hostPID: is true, must be false"},
		{"host-pid-and-own-processes", pod(func(spec *corev1.PodSpec) {
			spec.HostPID, spec.ShareProcessNamespace = true, ptr(false)
		}), "sidecar-integrity", "spec.template.spec.hostPID: is true, must be false"},
		{"selector", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchLabels["lifecycle.dexorder.io/user-type"] = "paid"
			d.Spec.Template.Labels = d.Spec.Selector.MatchLabels
		}, "identity", "spec.selector: is"},
		{"selector-of-none", func(d *appsv1.Deployment) {
			d.Spec.Selector.MatchExpressions = append(d.Spec.Selector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: "lifecycle.dexorder.io/deployment", Operator: metav1.LabelSelectorOpDoesNotExist})
		}, "identity", "spec.selector: is"},
		{"device", pod(block("disk")), "sidecar-integrity", `volume "disk" is at "/var/run/agent"`},
		{"device-of-run-volume", pod(block("lifecycle-run")), "sidecar-integrity", `the volume name "lifecycle-run" is the system's`},
		{"pod-limits", pod(func(spec *corev1.PodSpec) {
			spec.Containers[0].Resources = corev1.ResourceRequirements{}
			spec.Resources = &corev1.ResourceRequirements{Limits: quantities("50m", "128Mi"), Requests: quantities("50m", "64Mi")}
		}), "sidecar-integrity", "spec.template.spec.resources.limits[cpu]: is 50m, must be at least 100m"},
		{"pod-requests", pod(func(spec *corev1.PodSpec) {
			spec.Resources = &corev1.ResourceRequirements{Limits: quantities("200m", "256Mi"), Requests: quantities("100m", "128Mi")}
		}), "sidecar-integrity", "spec.template.spec.resources.requests[cpu]: is 100m, must be at least 101m"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := c.Client.Create(t.Context(), agent(tc.name, tc.change))
			denied(t, err, tc.rule)
			if err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("want %q, got: %v", tc.says, err)
			}
			if strings.HasPrefix(tc.name, "windows") && err != nil && strings.Count(err.Error(), "\n- ") != 1 {
				t.Errorf("want one sentence, got: %v", err)
			}
		})
	}
	for name, change := range map[string]func(*corev1.PodSpec){
		"own-processes": func(spec *corev1.PodSpec) { spec.ShareProcessNamespace = ptr(false) },
		"user-namespace": func(spec *corev1.PodSpec) {
			spec.HostUsers = ptr(false)
		},
		"resized-by-restart": func(spec *corev1.PodSpec) {
			spec.Containers[0].ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: corev1.RestartContainer}}
		},
		"room-for-the-sidecar": func(spec *corev1.PodSpec) {
			spec.Resources = &corev1.ResourceRequirements{Limits: quantities("500m", "512Mi"), Requests: quantities("200m", "256Mi")}
		},
	} {
		t.Run(name, func(t *testing.T) { c.create(t, agent(name, pod(change))) })
	}
	t.Run("rolling-update", func(t *testing.T) {
		c.create(t, agent("rolling-update", func(d *appsv1.Deployment) {
			d.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{}}
		}))
	})
}
