package provision

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// What an autoscaler sets is applied as it is stored; all else as the manifest has it.
func TestLeaveToScaler(t *testing.T) {
	object := func(kind, field string, value any, annotations map[string]any) *unstructured.Unstructured {
		spec := map[string]any{"paused": true}
		if value != nil {
			spec[field] = value
		}
		return &unstructured.Unstructured{Object: map[string]any{
			"kind": kind, "metadata": map[string]any{"name": "agent", "annotations": annotations}, "spec": spec,
		}}
	}
	night := map[string]any{"downscaler/original-replicas": "1"}
	autoscaler := scalers{"Deployment agent": "HorizontalPodAutoscaler a"}
	for name, tc := range map[string]struct {
		scalers    scalers
		want, live *unstructured.Unstructured
		field      string
		applied    any
		by         string
		untouched  bool
	}{
		"nobody scales it":      {nil, object("Deployment", "replicas", int64(1), nil), object("Deployment", "replicas", int64(0), nil), "replicas", int64(1), "", true},
		"it is not there":       {autoscaler, object("Deployment", "replicas", int64(1), nil), &unstructured.Unstructured{}, "replicas", int64(1), "", true},
		"an autoscaler":         {autoscaler, object("Deployment", "replicas", int64(1), nil), object("Deployment", "replicas", int64(0), nil), "replicas", int64(0), "HorizontalPodAutoscaler a", false},
		"another's":             {autoscaler, object("StatefulSet", "replicas", int64(1), nil), object("StatefulSet", "replicas", int64(0), nil), "replicas", int64(1), "", true},
		"a night scaler":        {nil, object("Deployment", "replicas", int64(1), nil), object("Deployment", "replicas", int64(0), night), "replicas", int64(0), "kube-downscaler", false},
		"says nothing":          {autoscaler, object("Deployment", "replicas", nil, nil), object("Deployment", "replicas", int64(0), nil), "replicas", nil, "HorizontalPodAutoscaler a", true},
		"a CronJob":             {nil, object("CronJob", "suspend", false, nil), object("CronJob", "suspend", true, night), "suspend", true, "kube-downscaler", false},
		"of no interest to any": {autoscaler, object("Service", "replicas", int64(1), nil), object("Service", "replicas", int64(0), night), "replicas", int64(1), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			before := tc.want.DeepCopy()
			applied, by := tc.scalers.leaveToScaler(tc.want, tc.live)
			value, _, _ := unstructured.NestedFieldNoCopy(applied.Object, "spec", tc.field)
			if value != tc.applied || by != tc.by || (applied == tc.want) != tc.untouched {
				t.Errorf("%s %v by %q, want %v by %q", tc.field, value, by, tc.applied, tc.by)
			}
			if paused, _, _ := unstructured.NestedBool(applied.Object, "spec", "paused"); !paused {
				t.Error("the rest is not the manifest's")
			}
			if value, _, _ := unstructured.NestedFieldNoCopy(before.Object, "spec", tc.field); value != nil {
				if now, _, _ := unstructured.NestedFieldNoCopy(tc.want.Object, "spec", tc.field); now != value {
					t.Errorf("the manifest was changed to %v", now)
				}
			}
		})
	}
}
