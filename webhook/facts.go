package webhook

import (
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// Facts implements FactSource.
func (c *Cluster) Facts(ctx context.Context, r *policy.Request, needs policy.Needs, fresh bool) (*policy.Facts, error) {
	l := lookup{live: c.live, namespace: r.Namespace, fresh: fresh}
	if m := c.current.Load(); m != nil && m.covers(r.Namespace) {
		l.memory = m
	}
	facts := &policy.Facts{}
	if needs.Owner {
		owner, err := l.owner(ctx, r.Object.Meta)
		if err != nil {
			return nil, err
		}
		facts.Owner = owner
	}
	if len(needs.Claims) > 0 {
		facts.Claims = make(map[string]policy.Claim, len(needs.Claims))
	}
	for _, name := range needs.Claims {
		claim, err := l.claim(ctx, name)
		if err != nil {
			return nil, err
		}
		facts.Claims[name] = claim
	}
	return facts, nil
}

// lookup gathers facts in one namespace for one request.
type lookup struct {
	// memory is nil where nothing is remembered of the namespace.
	memory    client.Reader
	live      client.Reader
	namespace string
	fresh     bool
}

// links are the kinds that stand between a workload and its Pods and may be controlled themselves; ends are workloads.
var (
	links = []schema.GroupVersionKind{replicaSetKind, jobKind}
	ends  = []schema.GroupVersionKind{deploymentKind, statefulSetKind, daemonSetKind, cronJobKind, replicationControllerKind}
)

// owner follows controller references from an object to the workload that it stands for: a Pod by way of its ReplicaSet
// to a Deployment, say. A ReplicaSet or a Job that nothing known controls is itself the end. References must carry the
// UID of what they lead to: a name can be taken again, or be made up.
func (l *lookup) owner(ctx context.Context, of metav1.Object) (*policy.Owner, error) {
	var owner *policy.Owner
	var kinds []string
	for {
		ref := metav1.GetControllerOfNoCopy(of)
		if ref == nil {
			return owner, nil
		}
		gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
		link := slices.Contains(links, gvk)
		if !link && !slices.Contains(ends, gvk) {
			return owner, nil
		}
		found, err := l.controller(ctx, gvk, ref)
		if err != nil {
			return nil, err
		}
		if found == nil {
			return nil, nil
		}
		kinds = append(kinds, ref.Kind)
		owner = &policy.Owner{Kinds: kinds, Name: found.GetName(), Labels: found.GetLabels()}
		if d, ok := found.(*appsv1.Deployment); ok {
			owner.Sidecar = sidecarOf(d)
		}
		if !link {
			return owner, nil
		}
		of = found
	}
}

// controller returns what a reference leads to, nil if there is nothing of that UID.
func (l *lookup) controller(ctx context.Context, gvk schema.GroupVersionKind, ref *metav1.OwnerReference) (client.Object, error) {
	newObject := func() client.Object {
		if gvk == deploymentKind {
			return &appsv1.Deployment{}
		}
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(gvk)
		return o
	}
	remembers := gvk == deploymentKind || slices.Contains(metadataOnly, gvk)
	return l.get(ctx, newObject, ref.Name, remembers, func(o client.Object) bool { return o.GetUID() == ref.UID })
}

// get reads an object that is the one looked for: from memory where it can, else from the API server, which has the last
// word on whether it exists. It returns nil if it does not.
func (l *lookup) get(
	ctx context.Context, newObject func() client.Object, name string, remembered bool, isIt func(client.Object) bool,
) (client.Object, error) {
	key := types.NamespacedName{Namespace: l.namespace, Name: name}
	if l.memory != nil && remembered && !l.fresh {
		o := newObject()
		switch err := l.memory.Get(ctx, key, o); {
		case err == nil && isIt(o):
			return o, nil
		case err != nil && !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("look up %s: %w", describe(o, name), err)
		}
	}
	o := newObject()
	switch err := l.live.Get(ctx, key, o); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", describe(o, name), err)
	case !isIt(o):
		return nil, nil
	}
	return o, nil
}

func describe(o client.Object, name string) string {
	what := o.GetObjectKind().GroupVersionKind().Kind
	if what == "" {
		what = deploymentKind.Kind // the only one that is read by its type
	}
	return fmt.Sprintf("%s %q", what, name)
}

// claim returns what is known of a PersistentVolumeClaim.
func (l *lookup) claim(ctx context.Context, name string) (policy.Claim, error) {
	newObject := func() client.Object {
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(claimKind)
		return o
	}
	whichever := func(client.Object) bool { return true }
	found, err := l.get(ctx, newObject, name, true, whichever)
	if err != nil {
		return policy.Claim{}, err
	}
	mountedBy, err := l.mountedBy(ctx, name)
	if err != nil {
		return policy.Claim{}, err
	}
	claim := policy.Claim{MountedBy: mountedBy}
	if found != nil {
		claim.Exists, claim.Deployment = true, found.GetLabels()[lifecycle.LabelDeployment]
	}
	return claim, nil
}

// mountedBy names the Deployments that mount a claim. Only memory has an index of that; reading all Deployments of a
// namespace for one request would be out of proportion. Fresh means that each of the few that are found is looked at
// again: one that has just gone must not keep its successor out.
func (l *lookup) mountedBy(ctx context.Context, claim string) ([]string, error) {
	if l.memory == nil {
		return nil, fmt.Errorf("which Deployments mount claim %q is not known yet: the namespace's objects have not been read", claim)
	}
	var list appsv1.DeploymentList
	err := l.memory.List(ctx, &list, client.InNamespace(l.namespace), client.MatchingFields{claimIndex: claim})
	if err != nil {
		return nil, fmt.Errorf("look up which Deployments mount claim %q: %w", claim, err)
	}
	var names []string
	for i := range list.Items {
		name := list.Items[i].Name
		if l.fresh {
			mounts := func(o client.Object) bool { return slices.Contains(mountedClaims(o), claim) }
			still, err := l.get(ctx, func() client.Object { return &appsv1.Deployment{} }, name, true, mounts)
			if err != nil {
				return nil, err
			}
			if still == nil {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}
