package reaper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deleteWorkloads deletes what could make Pods, and returns how many are left.
func (d *dismantler) deleteWorkloads(ctx context.Context, n *namespace, workloads []*workload) (int, error) {
	there := map[string]bool{}
	for _, w := range workloads {
		there[workloadKey(w)] = true
	}
	var errs []error
	for _, w := range workloads {
		if w.deleting || there[w.owner] {
			continue
		}
		opts := preconditions(&w.object)
		opts.PropagationPolicy = new(metav1.DeletePropagationBackground)
		i := slices.IndexFunc(kinds(), func(k kind) bool { return k.name == w.kind })
		k := kinds()[i]
		err := k.client(d.client).Delete().Namespace(n.name).Resource(k.resource).Name(w.name).Body(&opts).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete %s %s: %w", w.kind, w.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted what could make Pods in a namespace that is reaped", "namespace", n.name, "kind", w.kind, "name", w.name)
	}
	return len(workloads), errors.Join(errs...)
}

// deletePods deletes Pods that have ended and that no workload takes along: a claim does not go as long as one is there that mounts it.
func (d *dismantler) deletePods(ctx context.Context, n *namespace, pods []*pod) error {
	var errs []error
	for _, p := range pods {
		if p.live || p.deleting {
			continue
		}
		err := d.client.CoreV1().Pods(n.name).Delete(ctx, p.name, preconditions(&p.object))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete Pod %s: %w", p.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted a Pod that had ended in a namespace that is reaped", "namespace", n.name, "pod", p.name)
	}
	return errors.Join(errs...)
}

// deleteClaims deletes the claims, and returns how many are left. Their end is waited for: a namespace that is deleted at once may
// leave volumes behind.
func (d *dismantler) deleteClaims(ctx context.Context, n *namespace, claims []*claim) (int, error) {
	var errs []error
	for _, c := range claims {
		if c.deleting {
			continue
		}
		err := d.client.CoreV1().PersistentVolumeClaims(n.name).Delete(ctx, c.name, preconditions(&c.object))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete claim %s: %w", c.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted a claim in a namespace that is reaped", "namespace", n.name, "claim", c.name)
	}
	return len(claims), errors.Join(errs...)
}

// held names what is being deleted in a namespace and does not go, with the finalizers that hold it.
func (d *dismantler) held(ctx context.Context, name string) string {
	list, err := d.client.CoreV1().PersistentVolumeClaims(name).List(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return err.Error()
	}
	var held []string
	for i := range list.Items {
		if c := &list.Items[i]; c.DeletionTimestamp != nil {
			held = append(held, fmt.Sprintf("claim %s, held by finalizers %s", c.Name, strings.Join(c.Finalizers, ", ")))
		}
	}
	if len(held) == 0 {
		return "workloads that are being deleted"
	}
	return strings.Join(held, "; ")
}
