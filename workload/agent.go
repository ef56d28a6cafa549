package workload

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// AgentContainer returns the index of the container that runs the agent among a Deployment template's ordinary containers: the
// one that lifecycle.AnnotationAgentContainer names, else the one called agent, else the only one that is not the system's.
// The error says what would be accepted.
func AgentContainer(template *corev1.PodTemplateSpec) (int, error) {
	return agentContainer(template.Annotations, template.Spec.Containers)
}

// AgentContainerOfPod is AgentContainer for a Pod, to which service meshes and others have added containers of any name,
// before and after the agent's. fromTemplate names the agent's container in the template of the Pod's owner; it is empty
// where that is not known.
//
// The Pod's annotation is its template's and decides. Pods that were made before the system wrote it are known by the mount
// of lifecycle.RunVolume: the system gives it to the agent's container alone, beside its own sidecar.
func AgentContainerOfPod(pod *corev1.Pod, fromTemplate string) (int, error) {
	containers := pod.Spec.Containers
	if _, annotated := pod.Annotations[lifecycle.AnnotationAgentContainer]; !annotated {
		if i := onlyWithRunVolume(containers); i >= 0 {
			return i, nil
		}
		if i := containerIndex(containers, fromTemplate); i >= 0 {
			return i, nil
		}
	}
	return agentContainer(pod.Annotations, containers)
}

// IdentifyingContainers returns containers with nothing but what AgentContainerOfPod looks at, for those who keep many Pods.
func IdentifyingContainers(containers []corev1.Container) []corev1.Container {
	kept := make([]corev1.Container, len(containers))
	for i := range containers {
		kept[i].Name = containers[i].Name
		if mountsRunVolume(&containers[i]) {
			kept[i].VolumeMounts = []corev1.VolumeMount{{Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir}}
		}
	}
	return kept
}

// onlyWithRunVolume returns the index of the only container beside the sidecar that has the mount of the system, else -1.
func onlyWithRunVolume(containers []corev1.Container) int {
	only := -1
	for i := range containers {
		if containers[i].Name == lifecycle.SidecarContainer || !mountsRunVolume(&containers[i]) {
			continue
		}
		if only >= 0 {
			return -1
		}
		only = i
	}
	return only
}

func mountsRunVolume(c *corev1.Container) bool {
	for i := range c.VolumeMounts {
		if m := &c.VolumeMounts[i]; m.Name == lifecycle.RunVolume && m.MountPath == lifecycle.RunDir {
			return true
		}
	}
	return false
}

func agentContainer(annotations map[string]string, containers []corev1.Container) (int, error) {
	name, annotated := annotations[lifecycle.AnnotationAgentContainer]
	if annotated {
		if i := containerIndex(containers, name); i >= 0 && name != lifecycle.SidecarContainer {
			return i, nil
		}
		return -1, fmt.Errorf("annotation %s names %q, but the containers are %s",
			lifecycle.AnnotationAgentContainer, name, userContainers(containers))
	}
	if i := containerIndex(containers, lifecycle.AgentContainer); i >= 0 {
		return i, nil
	}
	only := -1
	for i := range containers {
		if containers[i].Name == lifecycle.SidecarContainer {
			continue
		}
		if only >= 0 {
			return -1, fmt.Errorf("which of the containers %s runs the agent? Call it %q or name it in the template's annotation %s",
				userContainers(containers), lifecycle.AgentContainer, lifecycle.AnnotationAgentContainer)
		}
		only = i
	}
	if only < 0 {
		return -1, fmt.Errorf("there is no container beside %q, so nothing runs the agent", lifecycle.SidecarContainer)
	}
	return only, nil
}

func userContainers(containers []corev1.Container) string {
	var names []string
	for i := range containers {
		if containers[i].Name != lifecycle.SidecarContainer {
			names = append(names, fmt.Sprintf("%q", containers[i].Name))
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func containerIndex(containers []corev1.Container, name string) int {
	for i := range containers {
		if containers[i].Name == name {
			return i
		}
	}
	return -1
}
