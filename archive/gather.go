package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// volumeClaim is a claim that names a volume.
type volumeClaim struct {
	name   string
	uid    types.UID
	volume string

	// bound says whether Kubernetes has noted on the claim that the volume is its own. Until it has, and where the
	// volume was lost, the volume may be another claim's, or not exist.
	bound bool
}

// gather reads all that is kept of a namespace, but its volumes, and lists what is not.
func (a *Archive) gather(ctx context.Context, namespace *unstructured.Unstructured, secretValues bool) (*content, []volumeClaim, error) {
	c := &content{
		Namespace: namespace.GetName(), UID: namespace.GetUID(),
		Records: []record{{Object: clean(namespace).Object}},
	}
	var claims []volumeClaim
	for _, k := range Kinds {
		objects, err := a.list(ctx, k, namespace.GetName())
		if err != nil {
			return nil, nil, fmt.Errorf("list %s of namespace %s: %w", k.Resource, namespace.GetName(), err)
		}
		for i := range objects {
			o := &objects[i]
			o.SetGroupVersionKind(k.GroupVersionKind) // Lists need not repeat it.
			if madeAnew(o) {
				continue
			}
			why, err := a.whyNotKept(ctx, o)
			if err != nil {
				return nil, nil, err
			}
			if why != "" {
				c.LeftOut = append(c.LeftOut, LeftOut{Kind: k.Kind, Name: o.GetName(), Reason: why})
				continue
			}
			if claim := claimIn(o); claim.volume != "" {
				claims = append(claims, claim)
			}
			r := record{Object: clean(o).Object}
			if k.Kind == kindSecret && !secretValues {
				r.Keys, r.WithoutValues = withoutValues(&unstructured.Unstructured{Object: r.Object}), true
			}
			c.Records = append(c.Records, r)
		}
	}
	others, err := a.others(ctx, namespace.GetName())
	if err != nil {
		return nil, nil, fmt.Errorf("list what namespace %s has beside that: %w", namespace.GetName(), err)
	}
	c.LeftOut = append(c.LeftOut, others...)
	return c, claims, nil
}

// whyNotKept says why an object is left out; "" if it is kept.
func (a *Archive) whyNotKept(ctx context.Context, o *unstructured.Unstructured) (string, error) {
	if why := whyLeftOut(o); why != "" || o.GetKind() != kindClaim {
		return why, nil
	}
	return a.whyScratch(ctx, o)
}

// list returns all objects of a kind, by name.
func (a *Archive) list(ctx context.Context, k Kind, namespace string) ([]unstructured.Unstructured, error) {
	resource := a.options.Dynamic.Resource(k.GVR()).Namespace(namespace)
	objects, err := listAll(ctx, metav1.ListOptions{Limit: a.options.PageSize},
		func(ctx context.Context, opts metav1.ListOptions) ([]unstructured.Unstructured, string, error) {
			list, err := resource.List(ctx, opts)
			if err != nil {
				return nil, "", err
			}
			return list.Items, list.GetContinue(), nil
		})
	slices.SortFunc(objects, func(a, b unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return objects, err
}

// claimIn returns a claim that names a volume, or the zero value.
func claimIn(o *unstructured.Unstructured) volumeClaim {
	volume, _, _ := unstructured.NestedString(o.Object, "spec", "volumeName")
	if o.GetKind() != kindClaim || volume == "" {
		return volumeClaim{}
	}
	phase, _, _ := unstructured.NestedString(o.Object, "status", "phase")
	return volumeClaim{o.GetName(), o.GetUID(), volume, phase == string(corev1.ClaimBound)}
}

// maxConflicts is how often a volume is read again because somebody else wrote it in between.
const maxConflicts = 5

// retainOwn makes the volume of a claim outlive it. It returns nil if the claim is not bound and the volume that it
// names is not its own.
func (a *Archive) retainOwn(ctx context.Context, i *Info, claim volumeClaim) (*Volume, error) {
	v, err := a.retainClaimed(ctx, i, claim)
	switch {
	case err == nil:
		return &v, nil
	case !claim.bound && (apierrors.IsNotFound(err) || errors.Is(err, errNotClaimed)):
		return nil, nil
	}
	return nil, fmt.Errorf("claim %s: %w", claim.name, err)
}

// retainLate makes the volumes of claims outlive them that were bound after the archive was made, whose objects it
// may not hold. A claim of the name of one whose volume is kept is what a controller made in its place when the first
// one was deleted: with each round of that there would be another volume.
func (a *Archive) retainLate(ctx context.Context, i *Info, c *content) error {
	k, _ := kindNamed(kindClaim)
	claims, err := a.list(ctx, k, i.Namespace)
	if err != nil {
		return fmt.Errorf("list claims of namespace %s: %w", i.Namespace, err)
	}
	for n := range claims {
		o := &claims[n]
		o.SetGroupVersionKind(k.GroupVersionKind)
		claim := claimIn(o)
		if claim.volume == "" || c.knowsClaim(claim.name) {
			continue
		}
		if why, err := a.whyScratch(ctx, o); why != "" || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		v, err := a.retainOwn(ctx, i, claim)
		if err != nil {
			return err
		}
		if v != nil {
			a.options.Logger.Warn("kept the volume of a claim that was bound after the archive was made, which holds no such claim",
				"archive", i.Name, "namespace", i.Namespace, "claim", v.Claim, "volume", v.Name)
		}
	}
	return nil
}

// retainClaimed makes the volume of a claim outlive it.
func (a *Archive) retainClaimed(ctx context.Context, i *Info, claim volumeClaim) (Volume, error) {
	var v Volume
	err := a.updateVolume(ctx, claim.volume, func(pv *corev1.PersistentVolume) (volumePatch, error) {
		if err := claimedBy(pv, i.Namespace, claim.name, claim.uid); err != nil {
			return nil, err
		}
		original, err := originalPolicy(pv)
		if err != nil {
			return nil, err
		}
		v = Volume{Claim: claim.name, Name: pv.Name, UID: pv.UID, ReclaimPolicy: original}
		return decideRetain(pv, i, i.KeptUntil)
	})
	return v, err
}

// retainAgain makes sure of a volume of a complete archive, whose claim may be gone by now. A volume that somebody has deleted or
// taken meanwhile, which Kubernetes does not, is said and no error: there is nothing left to keep.
func (a *Archive) retainAgain(ctx context.Context, i *Info, v Volume) error {
	err := a.updateVolume(ctx, v.Name, func(pv *corev1.PersistentVolume) (volumePatch, error) {
		if err := checkVolume(pv, v, i.Namespace); err != nil {
			a.options.Logger.Warn("a volume of an archive is not there any more", "archive", i.Name, "err", err)
			return nil, nil
		}
		return decideRetain(pv, i, i.KeptUntil)
	})
	if apierrors.IsNotFound(err) {
		a.options.Logger.Warn("a volume of an archive is not there any more", "archive", i.Name, "err", err)
		return nil
	}
	return err
}

// updateVolume patches a volume by what is decided on its live state, and decides again if that was another one.
func (a *Archive) updateVolume(ctx context.Context, name string, decide func(*corev1.PersistentVolume) (volumePatch, error)) error {
	volumes := a.options.Core.PersistentVolumes()
	for conflicts := 0; ; conflicts++ {
		pv, err := volumes.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return fmt.Errorf("PersistentVolume %s: %w", name, err)
		}
		patch, err := decide(pv)
		if err != nil || patch == nil {
			return err
		}
		err = a.patchVolume(ctx, name, patch)
		if apierrors.IsConflict(err) && conflicts < maxConflicts {
			continue
		}
		return err
	}
}

func (a *Archive) patchVolume(ctx context.Context, name string, patch volumePatch) error {
	data, err := patch.encode()
	if err != nil {
		return err
	}
	pv, err := a.options.Core.PersistentVolumes().Patch(ctx, name, types.MergePatchType, data, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("patch PersistentVolume %s: %w", name, err)
	}
	return patch.confirm(pv)
}

// reapingOf is when a namespace was marked.
func reapingOf(namespace *unstructured.Unstructured) string {
	return namespace.GetAnnotations()[lifecycle.AnnotationReaping]
}
