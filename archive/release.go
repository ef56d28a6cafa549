package archive

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Release deletes the archives whose time is over, and what attempts left behind that never became one. It gives volumes whose time is over
// their reclaim policy back, by which Kubernetes then deletes or keeps them. An archive's time begins when it is first called after the
// namespace has gone: as long as that is on its way, however long that takes, there is nothing to bring back yet. What it cannot read it
// keeps. An error says what could not be done; the rest is.
func (a *Archive) Release(ctx context.Context) error {
	// Chunks and ends first: one that is listed before the indexes are, and is of none of them, is of none.
	chunks, err := a.listChunks(ctx, lifecycle.LabelArchive)
	if err != nil {
		return fmt.Errorf("release archives: %w", err)
	}
	ends, err := a.ends(ctx)
	if err != nil {
		return fmt.Errorf("release archives: %w", err)
	}
	indexes, err := a.indexes(ctx)
	if err != nil {
		return fmt.Errorf("release archives: %w", err)
	}
	now := a.options.Now()
	var errs []error
	kept := map[string]bool{}
	for i := range indexes {
		cm := &indexes[i]
		kept[cm.Name] = true
		isOver, err := a.isOver(ctx, cm, ends[cm.Name], now)
		if err != nil {
			errs = append(errs, fmt.Errorf("release archive %s: %w", cm.Name, err))
		}
		if !isOver || err != nil {
			continue
		}
		// The index before its chunks, so that there is no archive that lacks some.
		if err := a.deleteObject(ctx, storeOf(false), &cm.ObjectMeta); err != nil {
			errs = append(errs, fmt.Errorf("release archive %s: %w", cm.Name, err))
			continue
		}
		delete(kept, cm.Name)
		a.options.Metrics.letGo(whatArchive)
		a.options.Logger.Info("archive released", "archive", cm.Name, "namespace", cm.Labels[lifecycle.LabelArchive])
	}
	a.options.Metrics.keeps(len(kept))
	for i := range chunks {
		c := &chunks[i]
		if kept[c.Annotations[lifecycle.AnnotationArchiveName]] || !over(c.Annotations, now) {
			continue
		}
		if err := a.deleteObject(ctx, c.store, &c.ObjectMeta); err != nil {
			errs = append(errs, fmt.Errorf("release chunk %s: %w", c.Name, err))
		}
	}
	for name, end := range ends {
		if kept[name] {
			continue
		}
		if err := a.deleteObject(ctx, storeOf(false), &end.ObjectMeta); err != nil {
			errs = append(errs, fmt.Errorf("release %s: %w", end.Name, err))
		}
	}
	errs = append(errs, a.releaseVolumes(ctx, kept))
	return errors.Join(errs...)
}

// releaseVolumes lets go of volumes, but not of those of an archive that is kept.
func (a *Archive) releaseVolumes(ctx context.Context, kept map[string]bool) error {
	volumes, err := a.keptVolumes(ctx, lifecycle.LabelArchive)
	if err != nil {
		return fmt.Errorf("release volumes: %w", err)
	}
	var errs []error
	for i := range volumes {
		pv := &volumes[i]
		if kept[pv.Annotations[lifecycle.AnnotationArchiveName]] {
			continue
		}
		if isAbandoned(pv, a.options.Now()) {
			a.options.Logger.Warn("a volume whose time is over stays: a restore has freed it for its claim, which was never made",
				"volume", pv.Name, "claim", pv.Spec.ClaimRef.Namespace+"/"+pv.Spec.ClaimRef.Name, "delete", "kubectl delete persistentvolume "+pv.Name)
			continue
		}
		patch, err := decideRelease(pv, a.options.Now())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if patch == nil {
			continue
		}
		if err := a.patchVolume(ctx, pv.Name, patch); err != nil {
			errs = append(errs, err)
			continue
		}
		a.options.Metrics.letGo(whatVolume)
		a.options.Logger.Info("volume released", "volume", pv.Name, "claim", pv.Spec.ClaimRef.Namespace+"/"+pv.Spec.ClaimRef.Name,
			"reclaimPolicy", pv.Annotations[lifecycle.AnnotationReclaimPolicy],
			"stays", pv.Annotations[lifecycle.AnnotationReclaimPolicy] == string(corev1.PersistentVolumeReclaimRetain))
	}
	return errors.Join(errs...)
}

// keptVolumes lists the volumes that a selector picks.
func (a *Archive) keptVolumes(ctx context.Context, selector string) ([]corev1.PersistentVolume, error) {
	return listAll(ctx, metav1.ListOptions{LabelSelector: selector, Limit: a.options.PageSize},
		func(ctx context.Context, opts metav1.ListOptions) ([]corev1.PersistentVolume, string, error) {
			list, err := a.options.Core.PersistentVolumes().List(ctx, opts)
			if err != nil {
				return nil, "", err
			}
			return list.Items, list.Continue, nil
		})
}
