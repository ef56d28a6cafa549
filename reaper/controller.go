package reaper

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// reconciler brings what belongs to one agent to what it should be.
type reconciler struct {
	client  client.Client
	policy  PolicySource
	breaker Breaker
	now     func() time.Time
	metrics *Metrics
	log     *slog.Logger

	mu     sync.Mutex
	pauses pauses
	denied map[string]bool
}

// Reconcile looks at one Deployment. It is called for every change of it, its claims, its Services and its Pods.
func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var d appsv1.Deployment
	if err := r.client.Get(ctx, request.NamespacedName, &d); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	a, ok := agentOf(r.policy.File(), &d)
	if !ok {
		return ctrl.Result{}, nil
	}
	if err := r.claims(ctx, a); err != nil {
		return ctrl.Result{}, r.tolerate(a, err)
	}
	if err := r.services(ctx, a); err != nil {
		return ctrl.Result{}, r.tolerate(a, err)
	}
	wait, err := r.freshPod(ctx, a)
	return ctrl.Result{RequeueAfter: wait}, r.tolerate(a, err)
}

// tolerate drops errors that trying again would not help: what has gone or changed comes back as a change, and where there are
// no rights, as in the namespaces of role agents, that is said once.
func (r *reconciler) tolerate(a *agent, err error) error {
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case !apierrors.IsForbidden(err):
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.denied[a.Namespace] {
		r.denied[a.Namespace] = true
		r.log.Warn("The reaper may not look after the agents of a namespace", "namespace", a.Namespace, "error", err)
	}
	return nil
}

func (r *reconciler) claims(ctx context.Context, a *agent) error {
	list := metadataList("", "PersistentVolumeClaim")
	if err := r.list(ctx, a, list); err != nil {
		return err
	}
	for i := range list.Items {
		claim := &list.Items[i]
		mountedBy, err := r.mountedBy(ctx, claim)
		if err != nil {
			return err
		}
		if err := r.apply(ctx, a, claim, decideClaim(a, &claim.ObjectMeta, mountedBy)); err != nil {
			return err
		}
	}
	return nil
}

func (r *reconciler) services(ctx context.Context, a *agent) error {
	list := metadataList("", "Service")
	if err := r.list(ctx, a, list); err != nil {
		return err
	}
	for i := range list.Items {
		if err := r.apply(ctx, a, &list.Items[i], decideService(a, &list.Items[i].ObjectMeta)); err != nil {
			return err
		}
	}
	return nil
}

func (r *reconciler) list(ctx context.Context, a *agent, into client.ObjectList) error {
	return r.client.List(ctx, into, client.InNamespace(a.Namespace), client.MatchingLabels{lifecycle.LabelDeployment: a.Name})
}

func (r *reconciler) mountedBy(ctx context.Context, claim client.Object) ([]string, error) {
	var list appsv1.DeploymentList
	err := r.client.List(ctx, &list, client.InNamespace(claim.GetNamespace()), client.MatchingFields{claimIndex: claim.GetName()})
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names, nil
}

func (r *reconciler) apply(ctx context.Context, a *agent, object client.Object, c *change) error {
	if c == nil {
		return nil
	}
	patch, err := c.patch(object.GetUID(), object.GetResourceVersion())
	if err != nil {
		return err
	}
	kind := object.GetObjectKind().GroupVersionKind().Kind
	if err := r.client.Patch(ctx, object, client.RawPatch(types.MergePatchType, patch)); err != nil {
		return fmt.Errorf("%s %s: %w", kind, object.GetName(), err)
	}
	r.metrics.owned.WithLabelValues(kind).Inc()
	r.log.InfoContext(ctx, "Set what becomes of an agent's object", "kind", kind, "namespace", a.Namespace, "name", object.GetName(),
		"deployment", a.Name, "userType", a.userType, "owned", len(c.owners) > 0)
	return nil
}

// freshPod deletes the Pod of an agent that is dead and kept. It returns when to look again.
func (r *reconciler) freshPod(ctx context.Context, a *agent) (time.Duration, error) {
	var pods corev1.PodList
	if err := r.list(ctx, a, &pods); err != nil {
		return 0, err
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		f := decidePod(a, pod, r.now())
		if !f.restart {
			if f.wait > 0 {
				return f.wait, nil
			}
			continue
		}
		if left := r.pause(a); left > 0 {
			return left, nil
		}
		if err := r.breaker.Closed(ctx); err != nil {
			r.log.InfoContext(ctx, "A dead agent waits for the circuit breaker", "namespace", a.Namespace, "deployment", a.Name, "error", err)
			return firstPause, nil
		}
		return r.restart(ctx, a, pod, f.reason)
	}
	return 0, nil
}

func (r *reconciler) pause(a *agent) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pauses.left(string(a.UID), r.now())
}

func (r *reconciler) restart(ctx context.Context, a *agent, pod *corev1.Pod, reason string) (time.Duration, error) {
	err := r.client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion})
	if err != nil {
		return 0, fmt.Errorf("delete Pod %s: %w", pod.Name, err)
	}
	r.mu.Lock()
	r.pauses.note(string(a.UID), r.now())
	r.mu.Unlock()
	r.metrics.restarted.Inc()
	r.log.InfoContext(ctx, "Gave an agent that had ended with 42 a fresh Pod", "namespace", a.Namespace, "deployment", a.Name,
		"pod", pod.Name, "reason", reason)
	return 0, nil
}

func metadataList(group, kind string) *metav1.PartialObjectMetadataList {
	list := &metav1.PartialObjectMetadataList{}
	list.APIVersion, list.Kind = (metav1.GroupVersion{Group: group, Version: "v1"}).String(), kind+"List"
	return list
}
