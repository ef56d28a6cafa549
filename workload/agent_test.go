package workload

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func named(names ...string) []corev1.Container {
	containers := make([]corev1.Container, len(names))
	for i, name := range names {
		// A "+" stands for the mount that the system gives.
		containers[i].Name = strings.TrimSuffix(name, "+")
		if strings.HasSuffix(name, "+") {
			containers[i].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}, {Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir}}
		}
	}
	return containers
}

func TestAgentContainerOfPod(t *testing.T) {
	const sidecar = lifecycle.SidecarContainer
	for name, tc := range map[string]struct {
		annotation, fromTemplate string
		containers               []corev1.Container
		want                     string // empty: an error
	}{
		"by its name":                                  {"", "", named("helper", "agent", sidecar), "agent"},
		"the only one":                                 {"", "", named("web", sidecar), "web"},
		"which of two":                                 {"", "", named("mesh", "web", sidecar), ""},
		"by annotation, behind a mesh's":               {"web", "", named("mesh", "web", sidecar), "web"},
		"by annotation, before a mesh's":               {"web", "", named("web", sidecar, "mesh"), "web"},
		"by annotation, beside one called agent":       {"web", "", named("agent", "web", sidecar), "web"},
		"by annotation, against mount and template":    {"web", "worker", named("worker+", "web", sidecar), "web"},
		"by an annotation that names nobody":           {"gone", "web", named("web+", sidecar), ""},
		"by an annotation that names the sidecar":      {sidecar, "", named("web", sidecar), ""},
		"by its mount, behind a mesh's":                {"", "", named("mesh", "web+", sidecar), "web"},
		"by its mount, the sidecar has it too":         {"", "", named("web+", "mesh", sidecar+"+"), "web"},
		"by its mount, beside a mesh's called agent":   {"", "", named("agent", "web+", sidecar), "web"},
		"two with the mount, one called agent":         {"", "", named("agent+", "web+", sidecar), "agent"},
		"two with the mount":                           {"", "", named("mesh+", "web+", sidecar), ""},
		"by the template, behind a mesh's":             {"", "web", named("mesh", "web"), "web"},
		"by the template, beside one called agent":     {"", "web", named("agent", "web"), "web"},
		"by a template that has changed since":         {"", "worker", named("web"), "web"},
		"by a template that has changed since, meshed": {"", "worker", named("mesh", "web"), ""},
		"nobody": {"", "", named(sidecar), ""},
	} {
		for _, containers := range [][]corev1.Container{tc.containers, IdentifyingContainers(tc.containers)} {
			pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: containers}}
			if tc.annotation != "" {
				metav1.SetMetaDataAnnotation(&pod.ObjectMeta, lifecycle.AnnotationAgentContainer, tc.annotation)
			}
			got, err := AgentContainerOfPod(pod, tc.fromTemplate)
			switch {
			case tc.want == "" && err == nil:
				t.Errorf("%s: it is %q, want an error", name, containers[got].Name)
			case tc.want != "" && (err != nil || containers[got].Name != tc.want):
				t.Errorf("%s: %d, %v, want %q", name, got, err, tc.want)
			}
		}
	}
}
