package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// eachWorkload goes through everything in a namespace that runs Pods and that no other workload made.
func (p *Provisioner) eachWorkload(ctx context.Context, namespace string, do func(*unstructured.Unstructured) error) error {
	for _, k := range kinds() {
		if k.Kind != kindDeployment && k.Kind != kindStatefulSet && k.Kind != kindCronJob {
			continue
		}
		list, err := p.objects.Resource(k.GroupVersion().WithResource(k.resource)).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			o := &list.Items[i]
			if metav1.GetControllerOf(o) != nil || o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := do(o); err != nil {
				return fmt.Errorf("%s: %w", nameOf(o), err)
			}
		}
	}
	return nil
}

// Do does what a Stop says: the namespace first, so that nobody provisions it meanwhile, and so that admission lets what is taken into
// service again start. It deletes nothing. Controllers and the reaper write the same objects: one that has changed meanwhile is read and
// judged again. On an error, planning and doing it again goes on.
func (p *Provisioner) Do(ctx context.Context, s *Stop) error {
	if err := p.writeMarks(ctx, s); err != nil {
		return err
	}
	for _, w := range s.Workloads {
		if err := p.insist(ctx, s, w); err != nil {
			return err
		}
	}
	return nil
}

func (p *Provisioner) writeMarks(ctx context.Context, s *Stop) error {
	n, marks := s.namespace, s.marks
	return persist(ctx, apierrors.IsConflict, func(ctx context.Context) error {
		if marks == nil {
			return nil
		}
		o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kindNamespace}}
		o.SetName(n.Name)
		o.SetUID(n.UID)
		o.SetResourceVersion(n.ResourceVersion)
		conflict := p.patch(ctx, o, map[string]any{"metadata": map[string]any{"annotations": marks}})
		if !apierrors.IsConflict(conflict) {
			return conflict
		}
		now, err := p.typed.CoreV1().Namespaces().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if now.UID != s.namespace.UID {
			return anotherNow("namespace " + n.Name)
		}
		if marks, _, err = s.mark(now); err != nil {
			return err
		}
		n = now
		return conflict
	})
}

// insist stops or starts one workload.
func (p *Provisioner) insist(ctx context.Context, s *Stop, w Stopped) error {
	uid := w.object.GetUID()
	// Admission hears of the namespace a moment later, and till then says that it is being reaped.
	passes := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsForbidden(err) }
	return persist(ctx, passes, func(ctx context.Context) error {
		if w.patch == nil {
			return nil
		}
		conflict := p.patch(ctx, w.object, w.patch)
		if !apierrors.IsConflict(conflict) {
			return conflict
		}
		now, err := p.client(w.object).Get(ctx, w.object.GetName(), metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			w.patch = nil
			return nil // nothing is left that could run
		case err != nil:
			return fmt.Errorf("%s: %w", w.Object, err)
		case now.GetUID() != uid:
			return anotherNow(w.Object)
		}
		again, err := s.workload(now)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Object, err)
		}
		w.object, w.patch = now, again.patch
		return conflict
	})
}

// anotherNow refuses to go on with an object that is not the one that was confirmed.
func anotherNow(name string) error {
	return refused("%s has been deleted meanwhile, and another one made: run this again", name)
}

// persist tries again while what comes of it may pass.
func persist(ctx context.Context, passes func(error) bool, try func(context.Context) error) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		last = try(ctx)
		return !passes(last), nil
	})
	if last != nil {
		return last
	}
	return err
}

// patch changes an object if it is still as it was seen.
func (p *Provisioner) patch(ctx context.Context, o *unstructured.Unstructured, patch map[string]any) error {
	meta, _ := patch["metadata"].(map[string]any)
	meta["uid"], meta["resourceVersion"] = o.GetUID(), o.GetResourceVersion()
	content, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = p.client(o).Patch(ctx, o.GetName(), types.MergePatchType, content, metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsConflict(err) {
		return refused("%s changes all the time: run this again: %w", nameOf(o), err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", nameOf(o), err)
	}
	return nil
}
