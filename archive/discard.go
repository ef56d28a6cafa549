package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// VolumeChoice is what becomes of the volumes of an archive that is given up.
type VolumeChoice string

// The choices.
const (
	// DeleteVolumes gives each volume the reclaim policy back that it had. Where that is Delete, its provisioner
	// deletes it with its data.
	DeleteVolumes VolumeChoice = "delete"

	// KeepVolumes leaves the volumes with the reclaim policy Retain, and without any mark of ours.
	KeepVolumes VolumeChoice = "keep"
)

// The outcomes of a Discard. All but Stays are as they were asked for.
const (
	// Deleted is an archive's outcome, and that of a volume whose provisioner deletes it now.
	Deleted Outcome = "deleted"

	// Kept is a volume's that stays without an archive.
	Kept Outcome = "kept"

	// Stays is a volume's that could not be let go of.
	Stays Outcome = "stays"
)

// KeptVolume is a PersistentVolume that is kept for an archive, or was until the archive went.
type KeptVolume struct {
	// Name is the volume's, Namespace and Claim are what it belonged to, and Archive is what it is kept for.
	Name, Namespace, Claim, Archive string

	// Capacity is for people. Phase is Released where the claim is gone and nobody has brought it back.
	Capacity string
	Phase    corev1.PersistentVolumePhase

	// ReclaimPolicy is what the volume had before.
	ReclaimPolicy string

	// KeptUntil is the earliest time at which the reaper lets go of it. It is zero where nobody knows, which is for ever.
	KeptUntil time.Time
}

// Volumes lists the volumes that are kept, by namespace and claim, also those whose archives are gone.
func (a *Archive) Volumes(ctx context.Context) ([]KeptVolume, error) {
	volumes, err := a.keptVolumes(ctx, lifecycle.LabelArchive)
	if err != nil {
		return nil, err
	}
	var all []KeptVolume
	for i := range volumes {
		if isKept(&volumes[i]) {
			all = append(all, keptVolumeOf(&volumes[i]))
		}
	}
	slices.SortFunc(all, func(a, b KeptVolume) int {
		return strings.Compare(a.Namespace+"/"+a.Claim+"/"+a.Name, b.Namespace+"/"+b.Claim+"/"+b.Name)
	})
	return all, nil
}

// isKept says whether a volume carries all marks of one that we keep, of a role agent's claim.
func isKept(pv *corev1.PersistentVolume) bool {
	ref := pv.Spec.ClaimRef
	return pv.Annotations[lifecycle.AnnotationArchiveName] != "" && pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "" &&
		ref != nil && strings.HasPrefix(ref.Namespace, lifecycle.RoleNamespacePrefix)
}

func keptVolumeOf(pv *corev1.PersistentVolume) KeptVolume {
	until, _ := time.Parse(time.RFC3339, pv.Annotations[lifecycle.AnnotationRetainedUntil])
	return KeptVolume{
		Name: pv.Name, Namespace: pv.Spec.ClaimRef.Namespace, Claim: pv.Spec.ClaimRef.Name, Archive: pv.Annotations[lifecycle.AnnotationArchiveName],
		Capacity: pv.Spec.Capacity.Storage().String(), Phase: pv.Status.Phase, ReclaimPolicy: pv.Annotations[lifecycle.AnnotationReclaimPolicy],
		KeptUntil: until,
	}
}

// Discard is what giving up an archive, or all of a namespace, concerns.
type Discard struct {
	// Archives are the names of those that go, and Volumes are kept for them, or were for such that have gone.
	Archives []string
	Volumes  []KeptVolume

	indexes []corev1.ConfigMap
	ends    []*corev1.ConfigMap
	chunks  []chunk
	volumes []corev1.PersistentVolume
}

// PlanDiscard finds what there is to give up. The name is a namespace's, for all of its archives, or an archive's. An
// archive that cannot be read is found as well, and so are volumes whose archive is gone. The error wraps ErrRefused
// where there is nothing, or where the namespace is still being taken apart: until it has gone, the archive is what
// that relies on.
func (a *Archive) PlanDiscard(ctx context.Context, name string) (*Discard, error) {
	meant := func(o metav1.Object) bool {
		archive := o.GetAnnotations()[lifecycle.AnnotationArchiveName]
		return o.GetLabels()[lifecycle.LabelArchive] == name || archive == name || archive == "" && o.GetName() == name
	}
	d := &Discard{}
	var err error
	// Chunks first, as Release does.
	if d.chunks, err = a.listChunks(ctx, lifecycle.LabelArchive); err != nil {
		return nil, err
	}
	d.chunks = slices.DeleteFunc(d.chunks, func(c chunk) bool { return !meant(&c) })
	for i := range d.chunks { // an archive that is being made has them before it has an index
		if err := a.mayDiscard(ctx, &d.chunks[i]); err != nil {
			return nil, err
		}
	}
	ends, err := a.ends(ctx)
	if err != nil {
		return nil, err
	}
	for _, end := range ends {
		if meant(end) {
			if err := a.mayDiscard(ctx, end); err != nil {
				return nil, err
			}
			d.ends = append(d.ends, end)
		}
	}
	indexes, err := a.indexes(ctx)
	if err != nil {
		return nil, err
	}
	for i := range indexes {
		if !meant(&indexes[i]) {
			continue
		}
		if err := a.mayDiscard(ctx, &indexes[i]); err != nil {
			return nil, err
		}
		d.indexes = append(d.indexes, indexes[i])
		d.Archives = append(d.Archives, indexes[i].Name)
	}
	volumes, err := a.keptVolumes(ctx, lifecycle.LabelArchive)
	if err != nil {
		return nil, err
	}
	for i := range volumes {
		if isKept(&volumes[i]) && meant(&volumes[i]) {
			d.volumes = append(d.volumes, volumes[i])
			d.Volumes = append(d.Volumes, keptVolumeOf(&volumes[i]))
		}
	}
	if len(d.indexes)+len(d.ends)+len(d.chunks)+len(d.volumes) == 0 {
		return nil, fmt.Errorf("%w: nothing is kept of %q; accepted is the name of an archive, or of a namespace that has one", ErrRefused, name)
	}
	return d, nil
}

// mayDiscard returns an error if the namespace of an archive, of which this is a part, is still there and is on its
// way out.
func (a *Archive) mayDiscard(ctx context.Context, part metav1.Object) error {
	name, archive := part.GetLabels()[lifecycle.LabelArchive], cmp.Or(part.GetAnnotations()[lifecycle.AnnotationArchiveName], part.GetName())
	live, err := a.options.Core.Namespaces().Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return err
	case string(live.UID) == part.GetAnnotations()[lifecycle.AnnotationArchivedUID] && leaves(live, archive):
		return fmt.Errorf("%w: namespace %s, of which archive %s was made, is marked for reaping or being deleted; wait until it is gone, or take the mark back",
			ErrRefused, name, archive)
	}
	return nil
}

// Discard gives up what was planned: archives first, then their volumes. It deletes and writes nothing that has
// changed since. It may be planned and called again after an error.
func (a *Archive) Discard(ctx context.Context, d *Discard, choice VolumeChoice) ([]Result, error) {
	if choice != DeleteVolumes && choice != KeepVolumes {
		return nil, fmt.Errorf("volumes: %q; accepted are %s and %s", choice, DeleteVolumes, KeepVolumes)
	}
	var results []Result
	for i := range d.indexes {
		if err := a.deleteObject(ctx, storeOf(false), &d.indexes[i].ObjectMeta); err != nil {
			return results, fmt.Errorf("archive %s: %w", d.indexes[i].Name, err)
		}
		results = append(results, Result{Kind: "Archive", Name: d.indexes[i].Name, Outcome: Deleted})
	}
	for i := range d.chunks {
		if err := a.deleteObject(ctx, d.chunks[i].store, &d.chunks[i].ObjectMeta); err != nil {
			return results, fmt.Errorf("chunk %s: %w", d.chunks[i].Name, err)
		}
	}
	for _, end := range d.ends {
		if err := a.deleteObject(ctx, storeOf(false), &end.ObjectMeta); err != nil {
			return results, fmt.Errorf("%s: %w", end.Name, err)
		}
	}
	var errs []error
	for i := range d.volumes {
		patch, result, err := decideDiscard(&d.volumes[i], choice)
		if err == nil && patch != nil {
			err = a.patchVolume(ctx, d.volumes[i].Name, patch)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		results = append(results, result)
	}
	return results, errors.Join(errs...)
}

// decideDiscard says what becomes of a volume. One that is not Released is in use, or is to be: it stays as it is.
func decideDiscard(pv *corev1.PersistentVolume, choice VolumeChoice) (volumePatch, Result, error) {
	result := Result{Kind: kindVolume, Name: pv.Name, Outcome: Stays}
	if pv.Status.Phase != corev1.VolumeReleased || pv.DeletionTimestamp != nil {
		result.Detail = fmt.Sprintf("it is %s, and claimed by %s/%s: only a volume whose claim is gone is let go of", pv.Status.Phase,
			pv.Spec.ClaimRef.Namespace, pv.Spec.ClaimRef.Name)
		return nil, result, nil
	}
	if choice == KeepVolumes {
		result.Outcome, result.Detail = Kept, "its reclaim policy stays Retain; from now on nothing but you deletes it"
		return withoutMarks(pv, corev1.PersistentVolumeReclaimRetain), result, nil
	}
	patch, err := giveBack(pv)
	if err != nil {
		return nil, result, err
	}
	result.Outcome, result.Detail = Deleted, "it has its reclaim policy back, by which its provisioner deletes it with its data"
	if pv.Annotations[lifecycle.AnnotationReclaimPolicy] == string(corev1.PersistentVolumeReclaimRetain) {
		result.Outcome, result.Detail = Kept, "its own reclaim policy is Retain, so that nothing but you deletes it"
	}
	return patch, result, nil
}
