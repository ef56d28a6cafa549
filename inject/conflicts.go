package inject

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Conflict is something that a user wrote and beside which the API server calls an injected part invalid. It would
// refuse the object before the rules are asked, for a field that the user never wrote. So the part is left out, and
// the rule sidecar-integrity refuses what the user wrote.
type Conflict struct {
	// Field is a path below the Pod's spec.
	Field string

	// Message says what is there and what would be accepted.
	Message string
}

// SelectsWith says whether a selector that selects a template still does with another value of a label. The API
// server would call it invalid otherwise; then the label stays as it is, and the rule identity refuses the selector.
func SelectsWith(selector *metav1.LabelSelector, template map[string]string, key, value string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil || !s.Matches(labels.Set(template)) {
		return true // It is invalid already, whatever the label is.
	}
	with := labels.Set{}
	maps.Copy(with, template)
	with[key] = value
	return s.Matches(with)
}

// ProcessNamespaceConflict returns what keeps the Pod's processes from sharing a namespace of their own; nil if
// nothing does.
func ProcessNamespaceConflict(spec *corev1.PodSpec) *Conflict {
	if !spec.HostPID {
		return nil
	}
	return &Conflict{"hostPID", "is true, must be false: the sidecar watches the agent's process in a namespace that is the Pod's own"}
}

// SidecarConflicts returns the bounds of the Pod as a whole that leave no room for the sidecar.
func SidecarConflicts(spec *corev1.PodSpec, sidecar *corev1.Container) []Conflict {
	if spec.Resources == nil {
		return nil
	}
	var conflicts []Conflict
	for _, name := range slices.Sorted(maps.Keys(spec.Resources.Limits)) {
		have := spec.Resources.Limits[name]
		if want, ok := sidecar.Resources.Limits[name]; ok && have.Cmp(want) < 0 {
			conflicts = append(conflicts, Conflict{fmt.Sprintf("resources.limits[%s]", name),
				fmt.Sprintf("is %s, must be at least %s, the limit of the container %q that is injected", have.String(), want.String(), sidecar.Name)})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Resources.Requests)) {
		have, sum := spec.Resources.Requests[name], requested(spec, name)
		extra, ok := sidecar.Resources.Requests[name]
		if !ok {
			continue
		}
		sum.Add(extra)
		if have.Cmp(sum) < 0 {
			conflicts = append(conflicts, Conflict{fmt.Sprintf("resources.requests[%s]", name),
				fmt.Sprintf("is %s, must be at least %s: the container %q that is injected asks for %s", have.String(), sum.String(), sidecar.Name, extra.String())})
		}
	}
	return conflicts
}

// requested sums up what the user's containers that run beside each other ask for.
func requested(spec *corev1.PodSpec, name corev1.ResourceName) resource.Quantity {
	var sum resource.Quantity
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sum.Add(c.Resources.Requests[name])
		}
	}
	for i := range spec.Containers {
		if c := &spec.Containers[i]; c.Name != lifecycle.SidecarContainer {
			sum.Add(c.Resources.Requests[name])
		}
	}
	return sum
}

// isForWindows says whether a Pod is one for Windows. The API server accepts hardly any of what is injected there,
// and the rule workload-kind refuses it.
func isForWindows(spec *corev1.PodSpec) bool {
	field, _ := workload.WindowsPod(spec)
	return field != ""
}

// DeviceInPlaceOfMount says whether a container has a block device under the name or at the path of the agent's
// mount, which the API server would call invalid beside it. The rule sidecar-integrity names the device.
func DeviceInPlaceOfMount(c *corev1.Container) bool {
	return slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool {
		return d.Name == lifecycle.RunVolume || d.DevicePath == lifecycle.RunDir
	})
}

// isBlockDevice says whether a container has the volume as a block device. Then it can be no directory, and stays as
// it is for the sidecar-integrity rule to refuse.
func isBlockDevice(spec *corev1.PodSpec, volume string) bool {
	template := &workload.Template{Spec: spec}
	return slices.ContainsFunc(template.Containers(), func(c workload.Container) bool {
		return slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == volume })
	})
}
