package webhook

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// caller returns what is known of the Pod that sends the request. The Pod is always read live: its status is what decides.
func (l *lookup) caller(ctx context.Context, r *policy.Request) (*policy.Caller, error) {
	name, _, err := policy.CallerPod(r)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	err = l.live.Get(ctx, types.NamespacedName{Namespace: l.namespace, Name: name}, pod)
	switch {
	case apierrors.IsNotFound(err):
		return &policy.Caller{}, nil
	case err != nil:
		return nil, fmt.Errorf("look up Pod %q: %w", name, err)
	}
	owner, err := l.owner(ctx, pod)
	if err != nil {
		return nil, err
	}
	if owner != nil && r.Old.Deployment != nil && owner.UID == r.Old.Meta.UID {
		// The request's copy is newer than memory's.
		owner.Labels, owner.Protection = r.Old.Meta.Labels, lifecycle.ProtectionMarks(r.Old.Meta.Labels, r.Old.Meta.Annotations)
	}
	return &policy.Caller{Pod: pod, Owner: owner}, nil
}

// deployment returns the Deployment of a name, nil if there is none. That there is none is believed of the API server
// alone: an agent's claim and Service are made right after its Deployment.
func (l *lookup) deployment(ctx context.Context, name string) (*policy.Owner, error) {
	found, err := l.recall(ctx, &appsv1.Deployment{}, name)
	if err == nil && found == nil {
		found, err = l.ask(ctx, &appsv1.Deployment{}, name)
	}
	if err != nil || found == nil {
		return nil, err
	}
	return &policy.Owner{
		Kinds: []string{deploymentKind.Kind}, Name: name, UID: found.GetUID(), Labels: found.GetLabels(),
		Created: found.GetCreationTimestamp(),
	}, nil
}

// claimsOf returns the claims that carry an agent's label, by name. Who mounts them is left out. They are always read live: they
// may go along with the Deployment that is to be deleted, and one that has just become one to be kept must not.
func (l *lookup) claimsOf(ctx context.Context, agent string) (map[string]policy.Claim, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(claimKind.GroupVersion().WithKind(claimKind.Kind + "List"))
	err := l.live.List(ctx, list, client.InNamespace(l.namespace), client.MatchingLabels{lifecycle.LabelDeployment: agent})
	if err != nil {
		return nil, fmt.Errorf("look up the claims of Deployment %q: %w", agent, err)
	}
	claims := make(map[string]policy.Claim, len(list.Items))
	for i := range list.Items {
		o := &list.Items[i]
		claims[o.Name] = policy.Claim{
			Exists: true, Deployment: agent, UserType: o.Labels[lifecycle.LabelUserType], Owners: o.OwnerReferences,
			Protection: lifecycle.ProtectionMarks(o.Labels, o.Annotations),
		}
	}
	return claims, nil
}

// WatchCaller implements CallerWatcher.
func (c *Cluster) WatchCaller(ctx context.Context, r *policy.Request, seen func(*policy.Facts) bool) error {
	if r.Facts == nil || r.Facts.Caller == nil || r.Facts.Caller.Pod == nil {
		return nil
	}
	pod := r.Facts.Caller.Pod
	w, err := c.live.Watch(ctx, &corev1.PodList{}, client.InNamespace(pod.Namespace), &client.ListOptions{
		Namespace:     pod.Namespace,
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, pod.Name),
		Raw:           &metav1.ListOptions{ResourceVersion: pod.ResourceVersion},
	})
	if err != nil {
		return fmt.Errorf("watch Pod %q: %w", pod.Name, err)
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, ok := <-w.ResultChan():
			if !ok {
				return fmt.Errorf("watch Pod %q: it was ended", pod.Name)
			}
			facts, err := c.afterEvent(r.Facts, event)
			if err != nil {
				return fmt.Errorf("watch Pod %q: %w", pod.Name, err)
			}
			if facts != nil && seen(facts) {
				return nil
			}
		}
	}
}

// afterEvent returns the facts with a Pod that has changed, nil if nothing has.
func (c *Cluster) afterEvent(before *policy.Facts, event watch.Event) (*policy.Facts, error) {
	facts := *before
	facts.Now = metav1.NewTime(c.now())
	switch event.Type {
	case watch.Added, watch.Modified:
		pod, ok := event.Object.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("got a %T", event.Object)
		}
		facts.Caller = &policy.Caller{Pod: pod, Owner: before.Caller.Owner}
		return &facts, nil
	case watch.Deleted:
		facts.Caller = &policy.Caller{}
		return &facts, nil
	case watch.Error:
		return nil, apierrors.FromObject(event.Object)
	}
	return nil, nil
}
