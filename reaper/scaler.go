package reaper

import (
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A workload without replicas wants no Pod by itself. Something else may, which scales it to 0 and back: then what looks idle is at work,
// and waits for the next request or message.

// scaler is a HorizontalPodAutoscaler. Whatever scales by way of one, as KEDA does, is known by it.
type scaler struct {
	object

	// target is kind/name of what it scales.
	target string
}

func scalerOf(o *autoscalingv2.HorizontalPodAutoscaler) *scaler {
	return &scaler{object: newObject(&o.ObjectMeta), target: o.Spec.ScaleTargetRef.Kind + "/" + o.Spec.ScaleTargetRef.Name}
}

// scalingSystems scale to 0 and back, and leave their API groups on what they scale: in owner references, labels and annotations.
var scalingSystems = []struct{ name, group string }{
	{"KEDA", "keda.sh"},
	{"Knative", "knative.dev"},
}

// scaledBy names the system that scales a workload, as far as the workload itself says so; "" if it does not.
func scaledBy(m *metav1.ObjectMeta) string {
	for _, s := range scalingSystems {
		of := func(domain string) bool { return domain == s.group || strings.HasSuffix(domain, "."+s.group) }
		for i := range m.OwnerReferences {
			if group, _, has := strings.Cut(m.OwnerReferences[i].APIVersion, "/"); has && of(group) {
				return s.name
			}
		}
		for _, keys := range []map[string]string{m.Labels, m.Annotations} {
			for key := range keys {
				if domain, _, has := strings.Cut(key, "/"); has && of(domain) {
					return s.name
				}
			}
		}
	}
	return ""
}

// scaled says which workloads of the namespace something else may scale up again. A scaler of what is not there scales nothing, unless
// that is of a kind that is not watched.
func (f *facts) scaled() []string {
	there := map[string]bool{}
	var scaled []string
	for _, w := range f.workloads {
		if w.deleting {
			continue
		}
		there[workloadKey(w)] = true
		// One that belongs to another workload goes without saying.
		if w.scaledBy != "" && w.owner == "" {
			scaled = append(scaled, w.kind+" "+w.name+" is scaled by "+w.scaledBy)
		}
	}
	for _, s := range f.scalers {
		of, name, _ := strings.Cut(s.target, "/")
		watched := slices.ContainsFunc(kinds(), func(k kind) bool { return k.workload && k.name == of })
		if !s.deleting && (there[s.target] || !watched) {
			scaled = append(scaled, of+" "+name+" is scaled by HorizontalPodAutoscaler "+s.name)
		}
	}
	slices.Sort(scaled)
	return scaled
}
