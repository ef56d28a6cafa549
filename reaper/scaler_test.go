package reaper

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// What an autoscaler sets is no drift. The rest of the same object is, and so are replicas that nobody else sets.
func TestScaledIsNoDrift(t *testing.T) {
	const template = `apiVersion: apps/v1
kind: Deployment
metadata: {name: agent}
spec: {replicas: 1, paused: false, minReadySeconds: 5}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: agent}
spec: {suspend: false, schedule: "0 1 * * *"}
`
	all, err := readTemplate(map[string]string{"a": template}, "agent-x")
	if err != nil {
		t.Fatal(err)
	}
	autoscaler := func(kind, name string) *scaler {
		return scalerOf(&autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: "hpa"},
			Spec:       autoscalingv2.HorizontalPodAutoscalerSpec{ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: kind, Name: name}},
		})
	}
	none := metav1.ObjectMeta{Name: "agent"}
	asleep := metav1.ObjectMeta{Name: "agent", Annotations: map[string]string{"downscaler/original-replicas": "1"}}
	suspended := metav1.ObjectMeta{Name: "agent", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kube-green"}}}
	deployment := func(meta metav1.ObjectMeta, seconds int32) runtime.Object {
		return &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Replicas: new(int32(0)), MinReadySeconds: seconds}}
	}
	cronJob := func(meta metav1.ObjectMeta) runtime.Object {
		return &batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{Suspend: new(true), Schedule: "0 1 * * *"}}
	}
	for name, tc := range map[string]struct {
		o       runtime.Object
		gvk     schema.GroupVersionKind
		scalers []*scaler
		want    string
	}{
		"nothing scales it":      {deployment(none, 5), all[0].gvk, nil, "Deployment agent: spec.replicas is 0, in the template 1"},
		"an autoscaler":          {deployment(none, 5), all[0].gvk, []*scaler{autoscaler("Deployment", "agent")}, ""},
		"an autoscaler's, else":  {deployment(none, 6), all[0].gvk, []*scaler{autoscaler("Deployment", "agent")}, "Deployment agent: spec.minReadySeconds is 6, in the template 5"},
		"another's":              {deployment(none, 5), all[0].gvk, []*scaler{autoscaler("Deployment", "b"), autoscaler("StatefulSet", "agent")}, "Deployment agent: spec.replicas is 0, in the template 1"},
		"a night scaler":         {deployment(asleep, 5), all[0].gvk, nil, ""},
		"a CronJob, by somebody": {cronJob(none), all[1].gvk, nil, "CronJob agent: spec.suspend is true, in the template false"},
		"a CronJob, by a scaler": {cronJob(suspended), all[1].gvk, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fields, err := fieldsOf(tc.o)
			if err != nil {
				t.Fatal(err)
			}
			want := &all[0]
			if tc.gvk == all[1].gvk {
				want = &all[1]
			}
			if got := strings.Join(differencesOf(want, fields, &facts{scalers: tc.scalers}).lines(), "; "); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

// A namespace that only an autoscaler keeps is told apart from one in which something runs.
func TestKeptByScaler(t *testing.T) {
	created := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	now := created.Add(24 * time.Hour)
	n := namespaceOf(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-x", CreationTimestamp: metav1.NewTime(created)}})
	asleep := &workload{object: object{name: "agent"}, kind: "Deployment", scaledBy: "KEDA"}
	for name, tc := range map[string]struct {
		f    *facts
		want bool
	}{
		"nothing runs, and nothing wants to": {&facts{namespace: n}, false},
		"something wants to":                 {&facts{namespace: n, workloads: []*workload{{object: object{name: "agent"}, kind: "Deployment", scaledBy: "KEDA", wants: true}}}, false},
		"an autoscaler may want to":          {&facts{namespace: n, workloads: []*workload{asleep}}, true},
	} {
		if v := decideNamespace(tc.f, &v1alpha1.Reaper{}, now); v.autoscaled != tc.want {
			t.Errorf("%s: %t", name, v.autoscaled)
		}
	}
}
