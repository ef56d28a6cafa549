package provision

import (
	"context"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// PlanUndo says what taking a namespace into service again would do.
func (p *Provisioner) PlanUndo(ctx context.Context, n *corev1.Namespace) (*Stop, error) {
	s, err := newStop(n, wanted, func(o *unstructured.Unstructured) (Stopped, error) {
		w, _ := starting(o)
		return w, nil
	})
	if err != nil {
		return nil, err
	}
	err = p.eachWorkload(ctx, n.Name, func(o *unstructured.Unstructured) error {
		w, is := starting(o)
		if is {
			s.Workloads = append(s.Workloads, w)
		}
		return nil
	})
	return s, err
}

// wanted takes the marks off a namespace.
func wanted(n *corev1.Namespace) (marks map[string]any, says string, err error) {
	if n.DeletionTimestamp != nil {
		return nil, "", refused("namespace %s has been in deletion since %s, which cannot be taken back; where the policy retains what is reaped,"+
			" run afterwards: kubectl agents restore %s", n.Name, n.DeletionTimestamp.UTC().Format(time.RFC3339), n.Name)
	}
	says = "has no mark"
	for _, key := range []string{lifecycle.AnnotationDeprovisioned, lifecycle.AnnotationReaping} {
		if _, has := n.Annotations[key]; has {
			if marks == nil {
				marks = map[string]any{}
			}
			marks[key], says = nil, "marks to be taken off"
		}
	}
	return marks, says, nil
}

// starting says how a workload that was stopped is started again.
func starting(o *unstructured.Unstructured) (w Stopped, is bool) {
	before, has := o.GetAnnotations()[lifecycle.AnnotationReplicasBefore]
	replicas, err := strconv.ParseInt(before, 10, 32)
	if !has || err != nil || replicas < 0 {
		return Stopped{}, false
	}
	w = Stopped{object: o, Object: nameOf(o)}
	if o.GetKind() == kindCronJob {
		w.Outcome = "to be resumed"
		w.patch = map[string]any{"metadata": annotate(nil), "spec": map[string]any{"suspend": false}}
		return w, true
	}
	w.Outcome = fmt.Sprintf("to be scaled to %d", replicas)
	w.patch = map[string]any{"metadata": annotate(nil), "spec": map[string]any{"replicas": replicas}}
	if now, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); now != 0 {
		w.Outcome = fmt.Sprintf("has %d replicas already", now)
		w.patch = map[string]any{"metadata": annotate(nil)} // somebody has scaled it since
	}
	return w, true
}
