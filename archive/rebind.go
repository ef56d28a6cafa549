package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const kindVolume = "PersistentVolume"

// keptVolume is one of the archive, as it is found.
type keptVolume struct {
	Volume

	// problem says why the claim cannot have it back.
	problem error
}

func volumeOf(volumes []keptVolume, claim string) *keptVolume {
	for i := range volumes {
		if volumes[i].Claim == claim {
			return &volumes[i]
		}
	}
	return nil
}

// lateVolumes are those that are kept with an archive which does not hold their claims, since these were bound after
// it was made.
func (a *Archive) lateVolumes(ctx context.Context, i *Info, c *content) ([]LeftOut, error) {
	volumes, err := a.keptVolumes(ctx, lifecycle.LabelArchive+"="+i.Namespace)
	if err != nil {
		return nil, err
	}
	var late []LeftOut
	for n := range volumes {
		pv := &volumes[n]
		if pv.Annotations[lifecycle.AnnotationArchiveName] != i.Name || pv.Spec.ClaimRef == nil ||
			slices.ContainsFunc(c.Volumes, func(v Volume) bool { return v.UID == pv.UID }) {
			continue
		}
		late = append(late, LeftOut{Kind: kindVolume, Name: pv.Name, Reason: fmt.Sprintf(
			"it is kept, and claim %s was bound to it after the archive was made: bind a claim to it yourself", pv.Spec.ClaimRef.Name)})
	}
	return late, nil
}

// volumes frees each of the archive's volumes for the claim that is about to come back.
func (r *restorer) volumes(ctx context.Context) ([]keptVolume, error) {
	var all []keptVolume
	for _, v := range r.content.Volumes {
		kept := keptVolume{Volume: v}
		claim, err := r.claimUID(ctx, v.Claim)
		if err != nil {
			return nil, err
		}
		err = r.updateVolume(ctx, v.Name, func(pv *corev1.PersistentVolume) (volumePatch, error) {
			if kept.problem = checkVolume(pv, v, r.info.Namespace); kept.problem != nil || r.dryRun {
				return nil, nil
			}
			return decideRebind(pv, claim), nil
		})
		if apierrors.IsNotFound(err) {
			kept.problem, err = checkVolume(nil, v, r.info.Namespace), nil
		}
		if err != nil {
			return nil, err
		}
		if kept.problem != nil {
			r.restored.add(Result{Kind: kindVolume, Name: v.Name, Outcome: Failed, Detail: kept.problem.Error()})
		}
		all = append(all, kept)
	}
	return all, nil
}

// claimUID is that of the claim that is there now, or empty.
func (r *restorer) claimUID(ctx context.Context, name string) (types.UID, error) {
	claim, err := r.options.Core.PersistentVolumeClaims(r.info.Namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("claim %s/%s: %w", r.info.Namespace, name, err)
	}
	return claim.UID, nil
}

// bindPoll is how often it is looked whether a volume is bound.
const bindPoll = 250 * time.Millisecond

// settle waits until the volumes are bound, and gives them their reclaim policies back.
func (r *restorer) settle(ctx context.Context, volumes []keptVolume, wait time.Duration) error {
	if r.dryRun {
		return nil
	}
	deadline := time.Now().Add(wait)
	for _, v := range volumes {
		if v.problem != nil {
			continue
		}
		result, err := r.settleOne(ctx, v.Volume, deadline)
		if err != nil {
			return err
		}
		r.restored.add(result)
	}
	return nil
}

func (r *restorer) settleOne(ctx context.Context, v Volume, deadline time.Time) (Result, error) {
	result := Result{Kind: kindVolume, Name: v.Name, Outcome: Exists, Detail: "bound to claim " + v.Claim}
	for {
		claim, err := r.claimUID(ctx, v.Claim)
		if err != nil {
			return result, err
		}
		var bound bool
		err = r.updateVolume(ctx, v.Name, func(pv *corev1.PersistentVolume) (patch volumePatch, err error) {
			patch, bound, err = decideSettle(pv, claim)
			return patch, err
		})
		switch {
		case err != nil:
			return failure(result, err)
		case bound:
			return result, nil
		case claim == "":
			result.Outcome, result.Detail = Failed, fmt.Sprintf("claim %s is not there; the volume stays kept", v.Claim)
			return result, nil
		case time.Now().After(deadline):
			result.Outcome = Failed
			result.Detail = fmt.Sprintf("it is not bound to claim %s yet and keeps its reclaim policy Retain; restore again to see to it", v.Claim)
			return result, nil
		}
		select {
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(bindPoll):
		}
	}
}

// patchNamespace changes annotations of the very state that was read.
func (r *restorer) patchNamespace(ctx context.Context, live *unstructured.Unstructured, annotations map[string]any) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": live.GetUID(), "resourceVersion": live.GetResourceVersion(), "annotations": annotations,
	}})
	if err != nil {
		return err
	}
	_, err = r.options.Dynamic.Resource(namespaceKind.GVR()).Patch(ctx, live.GetName(), types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
