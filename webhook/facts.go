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
	// The deletion of a claim cannot be taken back: what was true a moment ago must not be a reason for one.
	fresh = fresh || needs.Caller && r.Old.Claim != nil
	l := lookup{live: c.live, namespace: r.Namespace, fresh: fresh, final: r.Object == nil || r.Object.Kind == podKind.Kind}
	if m := c.current.Load(); m != nil && m.covers(r.Namespace) {
		l.memory = m
	}
	facts := &policy.Facts{Now: metav1.NewTime(c.now())}
	if needs.Caller {
		caller, err := l.caller(ctx, r)
		if err != nil {
			return nil, err
		}
		facts.Caller = caller
	}
	if len(needs.Deployments) > 0 {
		facts.Deployments = make(map[string]*policy.Owner, len(needs.Deployments))
	}
	for _, name := range needs.Deployments {
		d, err := l.deployment(ctx, name)
		if err != nil {
			return nil, err
		}
		facts.Deployments[name] = d
	}
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
	if needs.ClaimsOf != "" {
		claims, err := l.claimsOf(ctx, needs.ClaimsOf)
		if err != nil {
			return nil, err
		}
		facts.Claims = claims
	}
	return facts, nil
}

// lookup gathers facts in one namespace for one request.
type lookup struct {
	// memory is nil where nothing is remembered of the namespace.
	memory    client.Reader
	live      client.Reader
	namespace string

	// fresh: see FactSource.
	fresh bool

	// final says that nothing comes after this request that would be judged again.
	final bool
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
		owner = policy.OwnerOf(found, kinds...)
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
	isIt := func(o client.Object) bool { return o.GetUID() == ref.UID }
	if gvk == deploymentKind || slices.Contains(metadataOnly, gvk) {
		// What memory does not know of may have come just now, as a Pod does right after its ReplicaSet.
		if o, err := l.recall(ctx, newObject(), ref.Name); err != nil || o != nil && isIt(o) {
			return o, err
		}
	}
	if o, err := l.ask(ctx, newObject(), ref.Name); err != nil || o != nil && isIt(o) {
		return o, err
	}
	return nil, nil
}

// recall reads an object from memory. It returns nil if memory does not know it, or must not be used.
func (l *lookup) recall(ctx context.Context, into client.Object, name string) (client.Object, error) {
	if l.memory == nil || l.fresh {
		return nil, nil
	}
	return read(ctx, l.memory, l.namespace, name, into)
}

// ask reads an object from the API server. It returns nil if there is none.
func (l *lookup) ask(ctx context.Context, into client.Object, name string) (client.Object, error) {
	return read(ctx, l.live, l.namespace, name, into)
}

func read(ctx context.Context, from client.Reader, namespace, name string, into client.Object) (client.Object, error) {
	err := from.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, into)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look up %s: %w", describe(into, name), err)
	}
	return into, nil
}

func describe(o client.Object, name string) string {
	what := o.GetObjectKind().GroupVersionKind().Kind
	if what == "" {
		what = deploymentKind.Kind // the only one that is read by its type
	}
	return fmt.Sprintf("%s %q", what, name)
}

// claim returns what is known of a PersistentVolumeClaim. That memory knows none of that name is believed for a workload:
// the Pods that come of it are judged again, and for them the API server is asked. Agents are created before their
// claims, so that asking every time would cost each creation a call to the API server.
func (l *lookup) claim(ctx context.Context, name string) (policy.Claim, error) {
	newClaim := func() client.Object {
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(claimKind)
		return o
	}
	found, err := l.recall(ctx, newClaim(), name)
	if err == nil && found == nil && (l.memory == nil || l.fresh || l.final) {
		found, err = l.ask(ctx, newClaim(), name)
	}
	if err != nil {
		return policy.Claim{}, err
	}
	mountedBy, err := l.mountedBy(ctx, name)
	if err != nil {
		return policy.Claim{}, err
	}
	claim := policy.Claim{MountedBy: mountedBy}
	if found != nil {
		claim.Exists = true
		claim.Deployment, claim.UserType = found.GetLabels()[lifecycle.LabelDeployment], found.GetLabels()[lifecycle.LabelUserType]
		claim.Owners, claim.Protection = found.GetOwnerReferences(), lifecycle.ProtectionMarks(found.GetLabels(), found.GetAnnotations())
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
			d, err := l.ask(ctx, &appsv1.Deployment{}, name)
			if err != nil {
				return nil, err
			}
			if d == nil || !slices.Contains(mountedClaims(d), claim) {
				continue
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}
