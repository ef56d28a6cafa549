package archive

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

var volumeTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// keptPV is a volume whose claim is gone and whose time is over.
func keptPV(changes ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	pv := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: "pv-1", UID: "v1", ResourceVersion: "7", Annotations: map[string]string{
			lifecycle.AnnotationArchiveName: "archive-agent-a-1", lifecycle.AnnotationReclaimPolicy: "Delete",
			lifecycle.AnnotationRetainedUntil: "2026-01-02T03:04:04Z",
		}},
		Spec: corev1.PersistentVolumeSpec{PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			ClaimRef: &corev1.ObjectReference{Namespace: "agent-a", Name: "data", UID: "c1", ResourceVersion: "3"}},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeReleased},
	}
	for _, change := range changes {
		change(pv)
	}
	return pv
}

func encoded(t *testing.T, p volumePatch) string {
	t.Helper()
	data, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	if p != nil && !strings.Contains(string(data), `"resourceVersion":"7","uid":"v1"`) {
		t.Errorf("patch %s does not name what was decided on", data)
	}
	return string(data)
}

func TestDecideRelease(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*corev1.PersistentVolume)
		want   bool
	}{
		"over": {func(*corev1.PersistentVolume) {}, true},
		"not over": {func(pv *corev1.PersistentVolume) {
			pv.Annotations[lifecycle.AnnotationRetainedUntil] = "2026-01-02T03:04:06Z"
		}, false},
		"who knows until when":              {func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationRetainedUntil] = "soon" }, false},
		"bound":                             {func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeBound }, false},
		"available":                         {func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeAvailable }, false},
		"of no claim":                       {func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef = nil }, false},
		"of no agent":                       {func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.Namespace = "shop" }, false},
		"not ours":                          {func(pv *corev1.PersistentVolume) { delete(pv.Annotations, lifecycle.AnnotationArchiveName) }, false},
		"without what it had before":        {func(pv *corev1.PersistentVolume) { delete(pv.Annotations, lifecycle.AnnotationReclaimPolicy) }, false},
		"being deleted by an administrator": {func(pv *corev1.PersistentVolume) { pv.DeletionTimestamp = &metav1.Time{Time: volumeTime} }, false},
		"kept by its own class anyway":      {func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationReclaimPolicy] = "Retain" }, true},
	} {
		patch, err := decideRelease(keptPV(tc.change), volumeTime)
		if err != nil || (patch != nil) != tc.want {
			t.Errorf("%s: %v, %v; want a patch: %t", name, patch, err, tc.want)
		}
	}
	patch, err := decideRelease(keptPV(), volumeTime)
	if got := encoded(t, patch); err != nil || !strings.Contains(got, `"persistentVolumeReclaimPolicy":"Delete"`) || !strings.Contains(got, `"retained-until":null`) &&
		!strings.Contains(got, lifecycle.AnnotationRetainedUntil+`":null`) {
		t.Errorf("got %s, %v", got, err)
	}
	odd := keptPV(func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationReclaimPolicy] = "Burn" })
	if patch, err := decideRelease(odd, volumeTime); patch != nil || err == nil || !strings.Contains(err.Error(), `"Burn"`) {
		t.Errorf("an unknown policy: %v, %v", patch, err)
	}
}

func TestDecideRetain(t *testing.T) {
	info := &Info{Name: "archive-agent-a-1", Namespace: "agent-a"}
	later := volumeTime.Add(time.Hour)
	fresh := keptPV(func(pv *corev1.PersistentVolume) {
		pv.Annotations, pv.Spec.PersistentVolumeReclaimPolicy = nil, corev1.PersistentVolumeReclaimDelete
	})
	patch, err := decideRetain(fresh, info, later)
	if got := encoded(t, patch); err != nil || !strings.Contains(got, `"persistentVolumeReclaimPolicy":"Retain"`) ||
		!strings.Contains(got, lifecycle.AnnotationReclaimPolicy+`":"Delete"`) || !strings.Contains(got, `"2026-01-02T04:04:05Z"`) {
		t.Errorf("got %s, %v", got, err)
	}
	// What it had before is what it had before the first time.
	patch, err = decideRetain(keptPV(), info, later)
	if got := encoded(t, patch); err != nil || !strings.Contains(got, lifecycle.AnnotationReclaimPolicy+`":"Delete"`) {
		t.Errorf("got %s, %v", got, err)
	}
	for name, pv := range map[string]*corev1.PersistentVolume{
		"kept that long": keptPV(func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationRetainedUntil] = stamp(later) }),
		"kept even longer": keptPV(func(pv *corev1.PersistentVolume) {
			pv.Annotations[lifecycle.AnnotationRetainedUntil] = stamp(later.Add(time.Hour))
		}),
	} {
		if patch, err := decideRetain(pv, info, later); patch != nil || err != nil {
			t.Errorf("%s: %v, %v", name, patch, err)
		}
	}
}

func TestDecideRestored(t *testing.T) {
	v := Volume{Claim: "data", Name: "pv-1", UID: "v1"}
	if err := checkVolume(keptPV(), v, "agent-a"); err != nil {
		t.Error(err)
	}
	for name, pv := range map[string]*corev1.PersistentVolume{
		"gone":          nil,
		"another":       keptPV(func(pv *corev1.PersistentVolume) { pv.UID = "v2" }),
		"taken":         keptPV(func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.Name = "theirs" }),
		"taken, abroad": keptPV(func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.Namespace = "shop" }),
	} {
		if err := checkVolume(pv, v, "agent-a"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := encoded(t, decideRebind(keptPV(), "")); !strings.Contains(got, `"claimRef":{"resourceVersion":null,"uid":null}`) ||
		strings.Contains(got, "annotations") || strings.Contains(got, "labels") {
		t.Errorf("got %s", got)
	}
	if patch := decideRebind(keptPV(), "c1"); patch != nil {
		t.Errorf("its claim is there, and yet: %v", patch)
	}
	bound := keptPV(func(pv *corev1.PersistentVolume) { pv.Status.Phase, pv.Spec.ClaimRef.UID = corev1.VolumeBound, "c2" })
	if patch, is, err := decideSettle(bound, "c2"); patch == nil || !is || err != nil {
		t.Errorf("bound: %v, %t, %v", patch, is, err)
	}
	for name, pv := range map[string]*corev1.PersistentVolume{
		"not yet":          keptPV(func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.UID = "c2" }),
		"to another claim": keptPV(func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeBound }),
	} {
		if patch, is, err := decideSettle(pv, "c2"); patch != nil || is || err != nil {
			t.Errorf("%s: %v, %t, %v", name, patch, is, err)
		}
	}
}
