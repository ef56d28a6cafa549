package reaper

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestDecideOrphanedClaim(t *testing.T) {
	const (
		short    = "it has not been an orphan for long enough"
		goes     = "its user type deletes storage, and its agent has gone; seen so since "
		now      = "2026-01-02T12:00:00Z"
		longAgo  = "2026-01-02T11:50:00Z"
		latelyIs = "2026-01-02T11:50:01Z"
	)
	orphaned := func(since string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Annotations = map[string]string{lifecycle.AnnotationOrphanedSince: since}
		}
	}
	labelled := func(userType string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			orphaned(longAgo)(c)
			c.Labels[typeKey] = userType
		}
	}
	for name, tc := range map[string]struct {
		change            func(*corev1.PersistentVolumeClaim)
		deployed, mounted bool
		want              orphan
	}{
		"first seen":     {func(*corev1.PersistentVolumeClaim) {}, false, false, orphan{reason: short, since: now, next: newYear.Add(10 * time.Minute)}},
		"seen long ago":  {orphaned(longAgo), false, false, orphan{goes: true, reason: goes + longAgo, since: longAgo}},
		"seen lately":    {orphaned(latelyIs), false, false, orphan{reason: short, since: latelyIs, next: newYear.Add(time.Second)}},
		"in the future":  {orphaned("2026-01-02T12:00:01Z"), false, false, orphan{reason: short, since: now, next: newYear.Add(10 * time.Minute)}},
		"before it was":  {orphaned("2025-12-01T00:00:00Z"), false, false, orphan{reason: short, since: now, next: newYear.Add(10 * time.Minute)}},
		"at no time":     {orphaned("yesterday"), false, false, orphan{reason: short, since: now, next: newYear.Add(10 * time.Minute)}},
		"agent is back":  {orphaned(longAgo), true, false, orphan{reason: "its agent is there"}},
		"mounted":        {orphaned(longAgo), false, true, orphan{reason: "another workload mounts it"}},
		"free":           {labelled("free"), false, false, orphan{reason: "its user type keeps storage"}},
		"paid":           {labelled("paid"), false, false, orphan{reason: "its user type keeps storage"}},
		"enterprise":     {labelled("enterprise"), false, false, orphan{reason: "its user type keeps storage"}},
		"of no type":     {labelled("premium"), false, false, orphan{reason: "its user type keeps storage"}},
		"empty type":     {labelled(""), false, false, orphan{reason: "its user type keeps storage"}},
		"without a type": {func(c *corev1.PersistentVolumeClaim) { orphaned(longAgo)(c); delete(c.Labels, typeKey) }, false, false, orphan{reason: "its user type keeps storage"}},
		"on its way out": {func(c *corev1.PersistentVolumeClaim) {
			orphaned(longAgo)(c)
			c.DeletionTimestamp = &metav1.Time{Time: newYear}
		}, false, false, orphan{reason: "it is being deleted", since: longAgo}},
		"protected": {func(c *corev1.PersistentVolumeClaim) {
			orphaned(longAgo)(c)
			c.Annotations[lifecycle.AnnotationDoNotReap] = ""
		}, false, false, orphan{reason: "it is protected"}},
	} {
		c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
			Name: "alice-data", CreationTimestamp: metav1.NewTime(newYear.Add(-24 * time.Hour)), Labels: map[string]string{key: "alice", typeKey: "anonymous"},
		}}
		tc.change(c)
		if got := decideOrphanedClaim(recordOf(c).(*claim), tc.deployed, tc.mounted, examplePolicy(t), newYear); got != tc.want {
			t.Errorf("%s: %+v\nwant %+v", name, got, tc.want)
		}
	}
}

// Whatever may mount a claim is seen to.
func TestMounts(t *testing.T) {
	spec := corev1.PodSpec{Volumes: []corev1.Volume{{}, {VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"},
	}}}}
	template := corev1.PodTemplateSpec{Spec: spec}
	meta := metav1.ObjectMeta{Namespace: "agent-x", Name: "x"}
	job := batchv1.JobSpec{Template: template}
	owned := meta
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Controller: new(true)}}
	foreign := meta
	foreign.OwnerReferences = []metav1.OwnerReference{{APIVersion: "example.com/v1", Kind: "Job", Controller: new(true)}}
	for name, tc := range map[string]struct {
		record record
		want   bool
	}{
		"Deployment":    {recordOf(&appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: template}}), true},
		"ReplicaSet":    {recordOf(&appsv1.ReplicaSet{ObjectMeta: meta, Spec: appsv1.ReplicaSetSpec{Template: template}}), true},
		"StatefulSet":   {recordOf(&appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{Template: template}}), true},
		"DaemonSet":     {recordOf(&appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{Template: template}}), true},
		"controller":    {recordOf(&corev1.ReplicationController{ObjectMeta: meta, Spec: corev1.ReplicationControllerSpec{Template: &template}}), true},
		"Job":           {recordOf(&batchv1.Job{ObjectMeta: meta, Spec: job}), true},
		"CronJob":       {recordOf(&batchv1.CronJob{ObjectMeta: meta, Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: job}}}), true},
		"Pod":           {recordOf(&corev1.Pod{ObjectMeta: meta, Spec: spec}), true},
		"a foreign Pod": {recordOf(&corev1.Pod{ObjectMeta: foreign, Spec: spec}), true},
		"Pod of one":    {recordOf(&corev1.Pod{ObjectMeta: owned, Spec: spec}), false}, // what made it says so
	} {
		i := newInventory(func(string) bool { return true }, time.Now)
		i.put(tc.record, true)
		i.look("agent-x", func(p *place) {
			if got := p.mounted()["data"]; got != tc.want {
				t.Errorf("%s mounts it: %t", name, got)
			}
			if p.mounted()["other"] {
				t.Errorf("%s mounts what it does not", name)
			}
		})
	}
}
