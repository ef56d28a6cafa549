package policy

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// OwnerOf returns what a workload is to the Pods at the other end of a chain of controller references, whose kinds are given nearest to
// the Pod first.
func OwnerOf(o metav1.Object, kinds ...string) *Owner {
	owner := &Owner{
		Kinds: kinds, Name: o.GetName(), UID: o.GetUID(), Labels: o.GetLabels(), Created: o.GetCreationTimestamp(),
		Protection: lifecycle.ProtectionMarks(o.GetLabels(), o.GetAnnotations()),
	}
	if d, ok := o.(*appsv1.Deployment); ok {
		owner.Sidecar, owner.Volumes, owner.AgentContainer = SidecarOf(d), InjectedVolumes(d), AgentContainerOf(d)
	}
	return owner
}

// Admitted says whether a Deployment was admitted by the system: each gets the label, and is not admitted without. One that lacks it was
// there before.
func Admitted(name string, labels map[string]string) bool {
	return labels[lifecycle.LabelDeployment] == name
}

// AgentContainerOf names the container that runs the agent in a Deployment's Pod template, "" if that cannot be told.
func AgentContainerOf(d *appsv1.Deployment) string {
	i, err := workload.AgentContainer(&d.Spec.Template)
	if err != nil {
		return ""
	}
	return d.Spec.Template.Spec.Containers[i].Name
}

// SidecarOf returns the container under the sidecar's name in a Deployment's Pod template, nil if there is none.
func SidecarOf(d *appsv1.Deployment) *corev1.Container {
	containers := d.Spec.Template.Spec.Containers
	for i := range containers {
		if containers[i].Name == lifecycle.SidecarContainer {
			return &containers[i]
		}
	}
	return nil
}

// InjectedVolumes returns the volumes under the system's names in a Deployment's Pod template.
func InjectedVolumes(d *appsv1.Deployment) []corev1.Volume {
	var injected []corev1.Volume
	for _, volume := range d.Spec.Template.Spec.Volumes {
		if volume.Name == lifecycle.RunVolume || volume.Name == lifecycle.TokenVolume {
			injected = append(injected, volume)
		}
	}
	return injected
}
