package archive

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestDecideDiscard(t *testing.T) {
	ownRetain := func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationReclaimPolicy] = "Retain" }
	for name, tc := range map[string]struct {
		change  func(*corev1.PersistentVolume)
		choice  VolumeChoice
		outcome Outcome
		policy  string // that is written; empty: nothing is
	}{
		"deleted":                           {func(*corev1.PersistentVolume) {}, DeleteVolumes, Deleted, "Delete"},
		"kept":                              {func(*corev1.PersistentVolume) {}, KeepVolumes, Kept, "Retain"},
		"its own policy keeps it":           {ownRetain, DeleteVolumes, Kept, "Retain"},
		"bound":                             {func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeBound }, DeleteVolumes, Stays, ""},
		"freed for its claim":               {func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeAvailable }, KeepVolumes, Stays, ""},
		"being deleted by an administrator": {func(pv *corev1.PersistentVolume) { pv.DeletionTimestamp = &metav1.Time{Time: volumeTime} }, DeleteVolumes, Stays, ""},
		"kept, of an unknown policy":        {func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationReclaimPolicy] = "Burn" }, KeepVolumes, Kept, "Retain"},
		"not over, which is no matter": {func(pv *corev1.PersistentVolume) {
			pv.Annotations[lifecycle.AnnotationRetainedUntil] = "2126-01-02T03:04:04Z"
		}, DeleteVolumes, Deleted, "Delete"},
	} {
		patch, result, err := decideDiscard(keptPV(tc.change), tc.choice)
		if err != nil || result.Outcome != tc.outcome || (patch != nil) != (tc.policy != "") {
			t.Errorf("%s: %v, %+v, %v", name, patch, result, err)
			continue
		}
		if patch == nil {
			continue
		}
		if got := encoded(t, patch); !strings.Contains(got, `"persistentVolumeReclaimPolicy":"`+tc.policy+`"`) ||
			!strings.Contains(got, lifecycle.AnnotationArchiveName+`":null`) || !strings.Contains(got, lifecycle.LabelArchive+`":null`) {
			t.Errorf("%s: %s", name, got)
		}
	}
	odd := keptPV(func(pv *corev1.PersistentVolume) { pv.Annotations[lifecycle.AnnotationReclaimPolicy] = "Burn" })
	if patch, _, err := decideDiscard(odd, DeleteVolumes); patch != nil || err == nil || !strings.Contains(err.Error(), `"Burn"`) {
		t.Errorf("an unknown policy: %v, %v", patch, err)
	}
}

func TestIsAbandoned(t *testing.T) {
	available := func(pv *corev1.PersistentVolume) { pv.Status.Phase = corev1.VolumeAvailable }
	for name, tc := range map[string]struct {
		pv   *corev1.PersistentVolume
		want bool
	}{
		"freed by a restore": {keptPV(available), true},
		"released":           {keptPV(), false},
		"not over": {keptPV(available, func(pv *corev1.PersistentVolume) {
			pv.Annotations[lifecycle.AnnotationRetainedUntil] = "2026-01-02T03:04:06Z"
		}), false},
		"not ours": {keptPV(available, func(pv *corev1.PersistentVolume) { pv.Spec.ClaimRef.Namespace = "shop" }), false},
	} {
		if got := isAbandoned(tc.pv, volumeTime); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}
