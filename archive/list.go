package archive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// List returns the archives that are complete, by namespace and then from new to old. An error may come with those that could be read.
func (a *Archive) List(ctx context.Context) ([]Info, error) {
	indexes, err := a.indexes(ctx)
	if err != nil {
		return nil, err
	}
	ends, err := a.ends(ctx)
	if err != nil {
		return nil, err
	}
	var infos []Info
	var errs []error
	for i := range indexes {
		info, err := decodeIndex(&indexes[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if end := ends[info.Name]; end != nil {
			if until, err := time.Parse(time.RFC3339, end.Annotations[lifecycle.AnnotationRetainedUntil]); err == nil {
				info.KeptUntil = until
			}
		}
		infos = append(infos, *info)
	}
	slices.SortFunc(infos, func(a, b Info) int {
		if a.Namespace != b.Namespace {
			return strings.Compare(a.Namespace, b.Namespace)
		}
		return b.SavedAt.Compare(a.SavedAt)
	})
	return infos, errors.Join(errs...)
}

func (a *Archive) indexes(ctx context.Context) ([]corev1.ConfigMap, error) {
	return a.parts(ctx, lifecycle.ArchiveIndex)
}

// parts lists the ConfigMaps that are that part of an archive.
func (a *Archive) parts(ctx context.Context, part string) ([]corev1.ConfigMap, error) {
	selector := lifecycle.LabelArchive + "," + lifecycle.LabelArchivePart + "=" + part
	return listAll(ctx, metav1.ListOptions{LabelSelector: selector, Limit: a.options.PageSize},
		func(ctx context.Context, opts metav1.ListOptions) ([]corev1.ConfigMap, string, error) {
			list, err := a.configMaps().List(ctx, opts)
			if err != nil {
				return nil, "", err
			}
			return list.Items, list.Continue, nil
		})
}
