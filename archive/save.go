package archive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Keep says what is kept, and how long.
type Keep struct {
	// For is how long from now. It must be positive.
	For time.Duration

	// Secrets keeps the values of Secrets as well, in Secrets.
	Secrets bool
}

// Save keeps the objects of a role agent's namespace and the volumes of its claims, whatever controls these. It
// returns nil when all of it is stored; as long as it does not, nothing may be deleted. It may be called again, by
// anybody at any time: what it finds complete stands, however much of the namespace is gone by then, and what it
// finds begun is completed.
func (a *Archive) Save(ctx context.Context, namespace *corev1.Namespace, keep Keep) error {
	err := a.save(ctx, namespace, keep)
	if err != nil {
		err = fmt.Errorf("archive namespace %s: %w", namespace.Name, err)
	}
	a.options.Metrics.saved(err)
	return err
}

func (a *Archive) save(ctx context.Context, namespace *corev1.Namespace, keep Keep) error {
	if !strings.HasPrefix(namespace.Name, lifecycle.RoleNamespacePrefix) || namespace.UID == "" {
		return fmt.Errorf("it is %q with UID %q; accepted is a name that begins with %s, and a UID", namespace.Name, namespace.UID,
			lifecycle.RoleNamespacePrefix)
	}
	if keep.For <= 0 {
		return fmt.Errorf("it is to be kept for %s; accepted is a positive duration", keep.For)
	}
	live, err := a.options.Dynamic.Resource(namespaceKind.GVR()).Get(ctx, namespace.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if live.GetUID() != namespace.UID {
		return fmt.Errorf("its UID is %s, not %s: it is another one by now", live.GetUID(), namespace.UID)
	}
	name := nameOf(live.GetName(), live.GetUID(), reapingOf(live))
	switch i, err := a.index(ctx, name); {
	case err == nil:
		return a.confirm(ctx, i)
	case !apierrors.IsNotFound(err):
		return err
	}
	if live.GetDeletionTimestamp() != nil {
		return errors.New("it is being deleted already: what is left of it cannot be told from what it was")
	}

	now := a.options.Now()
	i := &Info{
		Name: name, Namespace: live.GetName(), UID: live.GetUID(),
		SavedAt: now, KeptUntil: now.Add(keep.For), SecretValues: keep.Secrets,
	}
	c, claims, err := a.gather(ctx, live, keep.Secrets)
	if err != nil {
		return err
	}
	for _, claim := range claims {
		v, err := a.retainOwn(ctx, i, claim)
		if err != nil {
			return err
		}
		if v == nil {
			c.LeftOut = append(c.LeftOut, LeftOut{
				Kind: kindVolume, Name: claim.volume, Reason: "claim " + claim.name + " names it and is not bound to it",
			})
			continue
		}
		c.Volumes = append(c.Volumes, *v)
	}
	sortLeftOut(c.LeftOut)
	p, err := pack(c, chunkSize)
	if err != nil {
		return err
	}
	i.LeftOut, i.LeftOutNoted = len(c.LeftOut), true
	i.Objects, i.Volumes, i.chunks, i.digest = len(c.Records), len(c.Volumes), len(p.chunks), p.digest
	for n, data := range p.chunks {
		if err := a.writeChunk(ctx, i, n, data, keep.For/2); err != nil {
			return fmt.Errorf("chunk %d: %w", n, err)
		}
	}
	// Whoever creates it decides which attempt counts.
	_, err = a.configMaps().Create(ctx, encodeIndex(i), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		if i, err = a.index(ctx, name); err != nil {
			return err
		}
		return a.confirm(ctx, i)
	}
	if err != nil {
		return fmt.Errorf("index %s: %w", name, err)
	}
	a.options.Logger.Info("archived", "namespace", i.Namespace, "archive", i.Name, "objects", i.Objects, "volumes", i.Volumes,
		"keptUntil", stamp(i.KeptUntil))
	if len(c.LeftOut) > 0 {
		a.options.Logger.Warn("left out of an archive", "namespace", i.Namespace, "archive", i.Name, "count", len(c.LeftOut),
			"leftOut", logged(c.LeftOut))
	}
	return a.removeStrays(ctx, i)
}

// confirm makes sure of an archive that is complete.
func (a *Archive) confirm(ctx context.Context, i *Info) error {
	c, err := a.load(ctx, i)
	if err != nil {
		return err
	}
	for _, v := range c.Volumes {
		if err := a.retainAgain(ctx, i, v); err != nil {
			return err
		}
	}
	if err := a.retainLate(ctx, i, c); err != nil {
		return err
	}
	return a.removeStrays(ctx, i)
}

// removeStrays deletes the chunks of attempts that did not count.
func (a *Archive) removeStrays(ctx context.Context, i *Info) error {
	counts := map[string]bool{}
	for n := range i.chunks {
		counts[i.chunkName(n)] = true
	}
	stray := func(store chunkStore, o *metav1.PartialObjectMetadata) bool {
		return o.Annotations[lifecycle.AnnotationArchiveName] == i.Name && (!counts[o.Name] || store.secret != i.SecretValues)
	}
	return a.deleteChunks(ctx, lifecycle.LabelArchive+"="+i.Namespace, stray)
}
