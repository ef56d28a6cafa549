package workload

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scalingSystem scales workloads to 0 and back, and leaves a trace on them. An empty field leaves no trace.
type scalingSystem struct {
	name string

	// group is its API group, or the end of its groups, in owner references and in the keys of labels and annotations.
	group string

	// key is a label or an annotation that stands for it, whatever the value if value is empty.
	key, value string

	// manager is the name by which it owns the fields that it applies.
	manager string
}

var scalingSystems = []scalingSystem{
	{name: "KEDA", group: "keda.sh"},
	{name: "Knative", group: "knative.dev"},
	// It notes how many replicas there were, and takes the note off once it has scaled up again.
	{name: "kube-downscaler", key: "downscaler/original-replicas"},
	// It notes on the workload only that it has written there: how many replicas there were is in a Secret of its own.
	{name: "kube-green", group: "kube-green.com", manager: "kube-green"},
	{name: "Sablier", key: "sablier.enable", value: "true"},
}

// ScaledBy names the system that scales a workload to 0 and back, as far as the workload itself says so; "" if it
// does not. A HorizontalPodAutoscaler leaves no trace on its target.
func ScaledBy(m *metav1.ObjectMeta) string {
	for i := range scalingSystems {
		if scalingSystems[i].scales(m) {
			return scalingSystems[i].name
		}
	}
	return ""
}

func (s *scalingSystem) scales(m *metav1.ObjectMeta) bool {
	for i := range m.OwnerReferences {
		if group, _, has := strings.Cut(m.OwnerReferences[i].APIVersion, "/"); has && s.isGroup(group) {
			return true
		}
	}
	for _, marks := range []map[string]string{m.Labels, m.Annotations} {
		for key, value := range marks {
			if domain, _, has := strings.Cut(key, "/"); has && s.isGroup(domain) {
				return true
			}
			if s.key != "" && key == s.key && (s.value == "" || value == s.value) {
				return true
			}
		}
	}
	return s.manager != "" && slices.ContainsFunc(m.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == s.manager })
}

func (s *scalingSystem) isGroup(domain string) bool {
	return s.group != "" && (domain == s.group || strings.HasSuffix(domain, "."+s.group))
}
