package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// index reads one by its archive's name.
func (a *Archive) index(ctx context.Context, name string) (*Info, error) {
	cm, err := a.configMaps().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return decodeIndex(cm)
}

// load reads the document of an archive. An error may mean that it is damaged.
func (a *Archive) load(ctx context.Context, i *Info) (*content, error) {
	p := packed{digest: i.digest}
	for n := range i.chunks {
		data, _, err := a.readChunk(ctx, i, n)
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("archive %s is damaged: chunk %s is missing", i.Name, i.chunkName(n))
		}
		if err != nil {
			return nil, fmt.Errorf("archive %s: %w", i.Name, err)
		}
		p.chunks = append(p.chunks, data)
	}
	c, err := unpack(p)
	if err != nil {
		return nil, fmt.Errorf("archive %s is damaged: %w", i.Name, err)
	}
	if c.Namespace != i.Namespace || c.UID != i.UID {
		return nil, fmt.Errorf("archive %s is damaged: it holds namespace %s with UID %s, and %s with UID %s by its index",
			i.Name, c.Namespace, c.UID, i.Namespace, i.UID)
	}
	return c, nil
}

func (a *Archive) readChunk(ctx context.Context, i *Info, n int) ([]byte, metav1.ObjectMeta, error) {
	if i.SecretValues {
		s, err := a.secrets().Get(ctx, i.chunkName(n), metav1.GetOptions{})
		if err != nil {
			return nil, metav1.ObjectMeta{}, err
		}
		return s.Data[chunkKey], s.ObjectMeta, nil
	}
	cm, err := a.configMaps().Get(ctx, i.chunkName(n), metav1.GetOptions{})
	if err != nil {
		return nil, metav1.ObjectMeta{}, err
	}
	return cm.BinaryData[chunkKey], cm.ObjectMeta, nil
}

func (a *Archive) createChunk(ctx context.Context, i *Info, n int, data []byte) error {
	immutable, meta := true, i.meta(i.chunkName(n), lifecycle.ArchiveChunk)
	var err error
	if i.SecretValues {
		_, err = a.secrets().Create(ctx, &corev1.Secret{
			ObjectMeta: meta, Immutable: &immutable, Type: lifecycle.SecretTypeArchive, Data: map[string][]byte{chunkKey: data},
		}, metav1.CreateOptions{})
	} else {
		_, err = a.configMaps().Create(ctx, &corev1.ConfigMap{
			ObjectMeta: meta, Immutable: &immutable, BinaryData: map[string][]byte{chunkKey: data},
		}, metav1.CreateOptions{})
	}
	return err
}

// writeChunk stores a chunk, or finds it stored by an attempt that saw the same. One that is kept for less than atLeast from now is
// written again, since Release might take it away before there is an index.
func (a *Archive) writeChunk(ctx context.Context, i *Info, n int, data []byte, atLeast time.Duration) error {
	err := a.createChunk(ctx, i, n, data)
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	there, meta, err := a.readChunk(ctx, i, n)
	if apierrors.IsNotFound(err) {
		// Somebody who has just completed the archive took it for a stray. The index will tell, and it is one then.
		return a.createChunk(ctx, i, n, data)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(there, data) {
		return fmt.Errorf("%s is there with other content", meta.Name)
	}
	if !shorter(meta.Annotations, a.options.Now().Add(atLeast)) {
		return nil
	}
	store := storeOf(i.SecretValues)
	if err := a.deleteObject(ctx, store, &meta); err != nil {
		return err
	}
	return a.createChunk(ctx, i, n, data)
}

// chunkStore is a resource in which chunks are kept.
type chunkStore struct {
	resource schema.GroupVersionResource
	secret   bool
}

// chunkStores are both of them: an attempt that did not count may have been made with another setting.
var chunkStores = []chunkStore{
	{corev1.SchemeGroupVersion.WithResource("configmaps"), false},
	{corev1.SchemeGroupVersion.WithResource("secrets"), true},
}

func storeOf(secret bool) chunkStore {
	for _, s := range chunkStores {
		if s.secret == secret {
			return s
		}
	}
	return chunkStore{}
}

// chunk is one that was listed.
type chunk struct {
	store chunkStore
	metav1.PartialObjectMetadata
}

// listChunks returns those that a further selector picks, without their data. Who keeps no values of Secrets needs no right to
// list Secrets: those that may not be seen stay.
func (a *Archive) listChunks(ctx context.Context, selector string) ([]chunk, error) {
	selector += "," + lifecycle.LabelArchivePart + "=" + lifecycle.ArchiveChunk
	var all []chunk
	for _, store := range chunkStores {
		resource := a.options.Metadata.Resource(store.resource).Namespace(a.options.Namespace)
		listed, err := listAll(ctx, metav1.ListOptions{LabelSelector: selector, Limit: a.options.PageSize},
			func(ctx context.Context, opts metav1.ListOptions) ([]metav1.PartialObjectMetadata, string, error) {
				list, err := resource.List(ctx, opts)
				if err != nil {
					return nil, "", err
				}
				return list.Items, list.Continue, nil
			})
		if store.secret && apierrors.IsForbidden(err) {
			a.options.Logger.Debug("chunks among Secrets are not looked for", "err", err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list chunks among %s: %w", store.resource.Resource, err)
		}
		for i := range listed {
			all = append(all, chunk{store, listed[i]})
		}
	}
	return all, nil
}

// deleteChunks deletes those that a selector and which pick.
func (a *Archive) deleteChunks(ctx context.Context, selector string, which func(chunkStore, *metav1.PartialObjectMetadata) bool) error {
	chunks, err := a.listChunks(ctx, selector)
	if err != nil {
		return err
	}
	var errs []error
	for i := range chunks {
		c := &chunks[i]
		if !which(c.store, &c.PartialObjectMetadata) {
			continue
		}
		// One that was written again meanwhile is the business of whoever did that.
		if err := a.deleteObject(ctx, c.store, &c.ObjectMeta); !apierrors.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// deleteObject deletes what was read, and nothing that has changed since. That it is gone is no error.
func (a *Archive) deleteObject(ctx context.Context, store chunkStore, meta *metav1.ObjectMeta) error {
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &meta.UID, ResourceVersion: &meta.ResourceVersion}}
	var err error
	if store.secret {
		err = a.secrets().Delete(ctx, meta.Name, opts)
	} else {
		err = a.configMaps().Delete(ctx, meta.Name, opts)
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
