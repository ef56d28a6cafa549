package reaper

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestMakers holds names of Pods, as controllers make them, against the workloads that are there.
func TestMakers(t *testing.T) {
	long, cut := strings.Repeat("a", 70), strings.Repeat("a", 58)
	for pod, workload := range map[string]string{
		"ops-5d4f8c7b9-x2v9q":          "ops", // a Deployment's, and any of its ReplicaSets'
		"db-0":                         "db",  // a StatefulSet's
		"report-28000000-x2v9q":        "report",
		"ops":                          "ops", // what a controller makes by its own name
		cut + "x2v9q":                  long,
		cut[:55] + "-3-x2v9q":          long, // an indexed Job's
		strings.Repeat("b", 63):        strings.Repeat("b", 62),
		"":                             "anything",
		"a.b-5d4f8c7b9-x2v9q":          "a.b",
		"rollout-worker-5d4f8c7b9-abc": "rollout",
	} {
		if !(makers{workload: true, "other": true}).mayHaveMade(pod) {
			t.Errorf("Pod %q may have been made by %q", pod, workload)
		}
	}
	for pod, workload := range map[string]string{
		"ops-5d4f8c7b9-x2v9q": "op", "opsx-5d4f8c7b9-x2v9q": "ops", "db-0": "db-1", "my-ops-0": "ops", "worker-1": "worker-1-2",
	} {
		if (makers{workload: true}).mayHaveMade(pod) {
			t.Errorf("Pod %q was not made by %q", pod, workload)
		}
	}
	if (makers{}).mayHaveMade("") {
		t.Error("a Pod without a name was made by a workload where there is none")
	}
	m := makers{}
	m.add(&metav1.ObjectMeta{Name: "web-77aa", OwnerReferences: []metav1.OwnerReference{
		{Kind: "Rollout", Name: "web", Controller: new(true)}, {Kind: "ConfigMap", Name: "settings"},
	}})
	if !m.mayHaveMade("web-5d4f-x2v9q") || m.mayHaveMade("settings-0") {
		t.Errorf("makers are %v: what controls a workload counts, and no other owner", m)
	}
}
