package reaper

import (
	"slices"
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	workloads "github.com/dexorder/agent-lifecycle/workload"
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

// scaledBy names what sets the replicas of a workload as it is now, or suspends it; empty if nothing does.
func (f *facts) scaledBy(kind, name string, meta *metav1.ObjectMeta) string {
	for _, s := range f.scalers {
		if !s.deleting && s.target == kind+"/"+name {
			return "HorizontalPodAutoscaler " + s.name
		}
	}
	return workloads.ScaledBy(meta)
}

// withoutScaling leaves out of a drift what an autoscaler sets: how many replicas there are, or whether a CronJob is
// suspended.
func (d drift) withoutScaling() drift {
	return slices.DeleteFunc(slices.Clone(d), func(f finding) bool { return f.path == "spec.replicas" || f.path == "spec.suspend" })
}
