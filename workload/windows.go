package workload

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// osLabels are the labels by which the kubelet says which operating system a node has.
var osLabels = []string{corev1.LabelOSStable, "beta.kubernetes.io/os"}

const windows = string(corev1.Windows)

// WindowsPod returns the field by which a Pod says that it is one for Windows, as a path below the Pod's spec, and
// the field's value. The field is empty where none does.
func WindowsPod(spec *corev1.PodSpec) (field, value string) {
	hostProcess := func(options *corev1.WindowsSecurityContextOptions) bool {
		return options != nil && options.HostProcess != nil && *options.HostProcess
	}
	if spec.OS != nil && spec.OS.Name == corev1.Windows {
		return "os.name", windows
	}
	if s := spec.SecurityContext; s != nil && hostProcess(s.WindowsOptions) {
		return "securityContext.windowsOptions.hostProcess", "true"
	}
	of := func(list string, i int, c *corev1.SecurityContext) string {
		if c == nil || !hostProcess(c.WindowsOptions) {
			return ""
		}
		return fmt.Sprintf("%s[%d].securityContext.windowsOptions.hostProcess", list, i)
	}
	for i := range spec.InitContainers {
		if field := of("initContainers", i, spec.InitContainers[i].SecurityContext); field != "" {
			return field, "true"
		}
	}
	for i := range spec.Containers {
		if field := of("containers", i, spec.Containers[i].SecurityContext); field != "" {
			return field, "true"
		}
	}
	for i := range spec.EphemeralContainers {
		if field := of("ephemeralContainers", i, spec.EphemeralContainers[i].SecurityContext); field != "" {
			return field, "true"
		}
	}
	return "", ""
}

// WindowsNodes returns the field by which a Pod asks for nodes with Windows alone, as a path below the Pod's spec,
// and the field's value. The field is empty where none does.
func WindowsNodes(spec *corev1.PodSpec) (field, value string) {
	for _, label := range osLabels {
		if spec.NodeSelector[label] == windows {
			return "nodeSelector[" + label + "]", windows
		}
	}
	if spec.Affinity == nil || spec.Affinity.NodeAffinity == nil {
		return "", ""
	}
	required := spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	if required == nil || len(required.NodeSelectorTerms) == 0 || slices.ContainsFunc(required.NodeSelectorTerms, allowsOtherThanWindows) {
		return "", ""
	}
	return "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution", windows
}

// allowsOtherThanWindows says whether a term, of which a node must match one, leaves room for another operating system.
func allowsOtherThanWindows(term corev1.NodeSelectorTerm) bool {
	return !slices.ContainsFunc(term.MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
		return slices.Contains(osLabels, r.Key) && r.Operator == corev1.NodeSelectorOpIn && slices.Equal(r.Values, []string{windows})
	})
}
