package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// policies are the reclaim policies that a volume can get back.
var policies = []corev1.PersistentVolumeReclaimPolicy{
	corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRetain, corev1.PersistentVolumeReclaimRecycle,
}

// volumePatch is a merge patch of a PersistentVolume. Its UID and resourceVersion make it fail on any other state than the
// one that was decided on.
type volumePatch map[string]any

// Labels and annotations that are nil stay as they are.
func patchOf(pv *corev1.PersistentVolume, labels, annotations, spec map[string]any) volumePatch {
	metadata := map[string]any{"uid": pv.UID, "resourceVersion": pv.ResourceVersion}
	// A null in the patch would remove all of them, ours and the provisioner's.
	if labels != nil {
		metadata["labels"] = labels
	}
	if annotations != nil {
		metadata["annotations"] = annotations
	}
	return volumePatch{"metadata": metadata, "spec": spec}
}

func (p volumePatch) encode() ([]byte, error) { return json.Marshal(p) }

// confirm returns an error unless the volume that the API server stored has the reclaim policy that the patch wanted.
// Another admission webhook may have put the old one back.
func (p volumePatch) confirm(stored *corev1.PersistentVolume) error {
	spec, _ := p["spec"].(map[string]any)
	want, sets := spec[keyReclaimPolicy].(corev1.PersistentVolumeReclaimPolicy)
	if got := stored.Spec.PersistentVolumeReclaimPolicy; sets && got != want {
		return fmt.Errorf("PersistentVolume %s: spec.%s is %s after it was set to %s: something changes it back", stored.Name, keyReclaimPolicy, got, want)
	}
	return nil
}

const keyReclaimPolicy = "persistentVolumeReclaimPolicy"

// originalPolicy is what a volume had before it was kept, if it is.
func originalPolicy(pv *corev1.PersistentVolume) (corev1.PersistentVolumeReclaimPolicy, error) {
	policy, kept := pv.Annotations[lifecycle.AnnotationReclaimPolicy]
	if !kept {
		return pv.Spec.PersistentVolumeReclaimPolicy, nil
	}
	if !slices.Contains(policies, corev1.PersistentVolumeReclaimPolicy(policy)) {
		return "", fmt.Errorf("PersistentVolume %s: annotation %s is %q; accepted are %v", pv.Name, lifecycle.AnnotationReclaimPolicy, policy, policies)
	}
	return corev1.PersistentVolumeReclaimPolicy(policy), nil
}

// errNotClaimed is wrapped by errors about a volume that is not the claim's.
var errNotClaimed = errors.New("it is not the claim's")

// claimedBy returns an error, which wraps errNotClaimed, unless the volume is bound to that claim, or was until the
// claim went.
func claimedBy(pv *corev1.PersistentVolume, namespace, claim string, uid types.UID) error {
	ref := pv.Spec.ClaimRef
	if ref == nil || ref.Namespace != namespace || ref.Name != claim || uid != "" && ref.UID != uid {
		return fmt.Errorf("%w: PersistentVolume %s belongs to %s, not to claim %s/%s with UID %q",
			errNotClaimed, pv.Name, claimOf(pv), namespace, claim, uid)
	}
	return nil
}

func claimOf(pv *corev1.PersistentVolume) string {
	if pv.Spec.ClaimRef == nil {
		return "no claim"
	}
	return fmt.Sprintf("claim %s/%s with UID %q", pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name, pv.Spec.ClaimRef.UID)
}

// decideRetain makes a volume outlive its claim. It returns nil if it does already, for this archive and that long.
func decideRetain(pv *corev1.PersistentVolume, i *Info, until time.Time) (volumePatch, error) {
	original, err := originalPolicy(pv)
	if err != nil {
		return nil, err
	}
	if pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain &&
		pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "" &&
		pv.Annotations[lifecycle.AnnotationArchiveName] == i.Name && !shorter(pv.Annotations, until) {
		return nil, nil
	}
	return patchOf(pv, map[string]any{lifecycle.LabelArchive: i.Namespace}, map[string]any{
		lifecycle.AnnotationReclaimPolicy: original,
		lifecycle.AnnotationArchiveName:   i.Name,
		lifecycle.AnnotationRetainedUntil: stamp(until),
	}, map[string]any{keyReclaimPolicy: corev1.PersistentVolumeReclaimRetain}), nil
}

// shorter says whether what is noted ends before until.
func shorter(annotations map[string]string, until time.Time) bool {
	noted, err := time.Parse(time.RFC3339, annotations[lifecycle.AnnotationRetainedUntil])
	return err != nil || noted.Before(until.Truncate(time.Second))
}

// decideRelease lets go of a volume whose time is over. It returns nil if that is not ours to do, or not yet: only a volume
// that we kept, that belonged to a role agent's claim, and whose claim is gone.
func decideRelease(pv *corev1.PersistentVolume, now time.Time) (volumePatch, error) {
	if !isKept(pv) || pv.Status.Phase != corev1.VolumeReleased || pv.DeletionTimestamp != nil || !over(pv.Annotations, now) {
		return nil, nil
	}
	return giveBack(pv)
}

// isAbandoned says whether the time of a volume is over that a restore has freed for its claim, which never came. It
// is not released, so that Kubernetes does not delete it by any reclaim policy.
func isAbandoned(pv *corev1.PersistentVolume, now time.Time) bool {
	return isKept(pv) && pv.Status.Phase == corev1.VolumeAvailable && pv.DeletionTimestamp == nil && over(pv.Annotations, now)
}

// giveBack restores the reclaim policy and removes what we noted.
func giveBack(pv *corev1.PersistentVolume) (volumePatch, error) {
	original, err := originalPolicy(pv)
	if err != nil {
		return nil, err
	}
	return withoutMarks(pv, original), nil
}

// withoutMarks removes what we noted, and sets the reclaim policy.
func withoutMarks(pv *corev1.PersistentVolume, policy corev1.PersistentVolumeReclaimPolicy) volumePatch {
	return patchOf(pv, map[string]any{lifecycle.LabelArchive: nil}, map[string]any{
		lifecycle.AnnotationReclaimPolicy: nil,
		lifecycle.AnnotationArchiveName:   nil,
		lifecycle.AnnotationRetainedUntil: nil,
	}, map[string]any{keyReclaimPolicy: policy})
}

// errVolumeGone is about data that cannot be brought back.
var errVolumeGone = errors.New("the volume is gone")

// checkVolume returns an error if a live volume is not the one that was kept for a claim. Nil stands for none.
func checkVolume(pv *corev1.PersistentVolume, v Volume, namespace string) error {
	if pv == nil || pv.DeletionTimestamp != nil {
		return fmt.Errorf("%w: PersistentVolume %s", errVolumeGone, v.Name)
	}
	if pv.UID != v.UID {
		return fmt.Errorf("%w: PersistentVolume %s has UID %s now, and had %s", errVolumeGone, v.Name, pv.UID, v.UID)
	}
	return claimedBy(pv, namespace, v.Claim, "")
}

// decideRebind frees a volume for the claim that is restored: it waits for a claim of the same name, whatever its UID. claim is the UID of
// the claim that is there now, if one is. It returns nil if there is nothing to do.
func decideRebind(pv *corev1.PersistentVolume, claim types.UID) volumePatch {
	if uid := pv.Spec.ClaimRef.UID; uid == "" || uid == claim {
		return nil
	}
	return patchOf(pv, nil, nil, map[string]any{"claimRef": map[string]any{"uid": nil, "resourceVersion": nil}})
}

// decideSettle gives a restored volume its reclaim policy back. bound is false while it is not bound to its new claim yet, which has
// that UID.
func decideSettle(pv *corev1.PersistentVolume, claim types.UID) (patch volumePatch, bound bool, err error) {
	if claim == "" || pv.Status.Phase != corev1.VolumeBound || pv.Spec.ClaimRef == nil || pv.Spec.ClaimRef.UID != claim {
		return nil, false, nil
	}
	if pv.Annotations[lifecycle.AnnotationReclaimPolicy] == "" {
		return nil, true, nil
	}
	patch, err = giveBack(pv)
	return patch, true, err
}
