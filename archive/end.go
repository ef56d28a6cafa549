package archive

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// An end is a ConfigMap beside an archive's index that says until when the archive is kept, counted from when the namespace was found
// to have gone. It is an object of its own since those of an archive never change: whoever keeps archives needs no right to change any
// ConfigMap of the system's namespace.

// isOver says whether the time of an archive is over. An archive whose namespace has gone, and that has no end yet, gets one.
func (a *Archive) isOver(ctx context.Context, index, end *corev1.ConfigMap, now time.Time) (bool, error) {
	if end != nil {
		return over(end.Annotations, now), nil
	}
	live, err := a.options.Core.Namespaces().Get(ctx, index.Labels[lifecycle.LabelArchive], metav1.GetOptions{})
	switch {
	case err != nil && !apierrors.IsNotFound(err):
		return false, err
	case err == nil && string(live.UID) == index.Annotations[lifecycle.AnnotationArchivedUID]:
		// One that is on its way may take its time, and one that was let live has nothing to be brought back.
		return !leaves(live, index.Name) && over(index.Annotations, now), nil
	}
	i, err := decodeIndex(index)
	if err != nil {
		return false, nil //nolint:nilerr // what cannot be read is kept, and List says so
	}
	return false, a.createEnd(ctx, i, now)
}

// leaves says whether a namespace is being deleted, or is marked as it was when the archive was made of it: then what is in it is.
func leaves(live *corev1.Namespace, archive string) bool {
	return live.DeletionTimestamp != nil || nameOf(live.Name, live.UID, live.Annotations[lifecycle.AnnotationReaping]) == archive
}

// createEnd gives the archive all of its time from now on.
func (a *Archive) createEnd(ctx context.Context, i *Info, now time.Time) error {
	immutable, ended := true, *i
	ended.KeptUntil = now.Add(i.KeptUntil.Sub(i.SavedAt))
	_, err := a.configMaps().Create(ctx, &corev1.ConfigMap{
		ObjectMeta: ended.meta(i.Name+"-"+lifecycle.ArchiveEnd, lifecycle.ArchiveEnd), Immutable: &immutable,
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// ends lists all, by their archive's name.
func (a *Archive) ends(ctx context.Context) (map[string]*corev1.ConfigMap, error) {
	list, err := a.parts(ctx, lifecycle.ArchiveEnd)
	if err != nil {
		return nil, err
	}
	ends := make(map[string]*corev1.ConfigMap, len(list))
	for i := range list {
		ends[list[i].Annotations[lifecycle.AnnotationArchiveName]] = &list[i]
	}
	return ends, nil
}
