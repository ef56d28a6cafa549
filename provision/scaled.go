package provision

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/util/retry"

	"github.com/dexorder/agent-lifecycle/workload"
)

// scalers names the HorizontalPodAutoscalers of a namespace, by "KIND NAME" of what they scale.
type scalers map[string]string

func (p *Provisioner) scalers(ctx context.Context, namespace string) (scalers, error) {
	list, err := p.typed.AutoscalingV2().HorizontalPodAutoscalers(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list HorizontalPodAutoscalers of namespace %s: %w", namespace, err)
	}
	found := scalers{}
	for i := range list.Items {
		if a := &list.Items[i]; a.DeletionTimestamp == nil {
			found[a.Spec.ScaleTargetRef.Kind+" "+a.Spec.ScaleTargetRef.Name] = "HorizontalPodAutoscaler " + a.Name
		}
	}
	return found, nil
}

// of names what sets the replicas of a workload, or suspends it, beside its manifest; empty if nothing does.
func (s scalers) of(live *unstructured.Unstructured) string {
	if by := s[nameOf(live)]; by != "" {
		return by
	}
	var meta metav1.ObjectMeta
	content, _, err := unstructured.NestedMap(live.Object, "metadata")
	if err != nil || runtime.DefaultUnstructuredConverter.FromUnstructured(content, &meta) != nil {
		return ""
	}
	return workload.ScaledBy(&meta)
}

// scalingField is what autoscalers set of a kind; nil for kinds that they leave alone.
func scalingField(o *unstructured.Unstructured) []string {
	switch o.GetKind() {
	case kindDeployment, kindStatefulSet:
		return []string{"spec", "replicas"}
	case kindCronJob:
		return []string{"spec", "suspend"}
	}
	return nil
}

// leaveToScaler returns an object as it is to be applied where an autoscaler sets part of what is stored: that part
// as it is. by names the autoscaler; it is empty where there is none, or nothing is stored, and the object is then as
// it was.
func (s scalers) leaveToScaler(o, live *unstructured.Unstructured) (applied *unstructured.Unstructured, by string) {
	field := scalingField(o)
	if field == nil || len(live.Object) == 0 {
		return o, ""
	}
	if by = s.of(live); by == "" {
		return o, ""
	}
	if _, has, err := unstructured.NestedFieldNoCopy(o.Object, field...); !has || err != nil {
		return o, by
	}
	applied = o.DeepCopy()
	unstructured.RemoveNestedField(applied.Object, field...)
	if value, has, err := unstructured.NestedFieldCopy(live.Object, field...); has && err == nil {
		_ = unstructured.SetNestedField(applied.Object, value, field...) // spec is a map: it had the field
	}
	return applied, by
}

// applyScaled applies an object but for what an autoscaler sets of it, as that is when it is written.
func (p *Provisioner) applyScaled(ctx context.Context, o *unstructured.Unstructured, s scalers) error {
	if scalingField(o) == nil {
		_, err := p.apply(ctx, o)
		return err
	}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		live, err := p.client(o).Get(ctx, o.GetName(), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			live, err = &unstructured.Unstructured{}, nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", nameOf(o), err)
		}
		applied, by := s.leaveToScaler(o, live)
		if by != "" {
			applied = applied.DeepCopy()
			applied.SetResourceVersion(live.GetResourceVersion())
		}
		_, err = p.apply(ctx, applied)
		return err
	})
}
