package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// transient are the resources that tell what runs at a moment, or that Kubernetes makes of something else. Nobody
// misses them.
var transient = []schema.GroupResource{
	{Group: "", Resource: "events"},
	{Group: "events.k8s.io", Resource: "events"},
	{Group: "", Resource: "endpoints"},
	{Group: "discovery.k8s.io", Resource: "endpointslices"},
	{Group: "coordination.k8s.io", Resource: "leases"},
	{Group: "apps", Resource: "controllerrevisions"},
	{Group: "storage.k8s.io", Resource: "csistoragecapacities"},
	{Group: "metrics.k8s.io", Resource: "pods"},
}

// others lists the objects of a namespace that are of none of Kinds and that nothing else controls, such as custom
// resources. A kind that cannot be listed is no reason to keep the namespace: it is listed by its own name, so that
// an operator can look.
func (a *Archive) others(ctx context.Context, namespace string) ([]LeftOut, error) {
	lists, err := a.options.Discovery.ServerPreferredNamespacedResources()
	var all []LeftOut
	var failed *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.As(err, &failed):
		for group, why := range failed.Groups {
			all = append(all, LeftOut{Kind: "every kind of " + group.String(), Reason: "it could not be asked for: " + why.Error()})
		}
	case err != nil:
		return nil, fmt.Errorf("ask which kinds of objects there are: %w", err)
	}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			if !slices.Contains(r.Verbs, "list") || holds(gv.Group, r.Name) ||
				slices.Contains(transient, schema.GroupResource{Group: gv.Group, Resource: r.Name}) {
				continue
			}
			found, err := a.othersOf(ctx, gv.WithResource(r.Name), r.Kind, namespace)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// holds says whether archives hold objects of a resource.
func holds(group, resource string) bool {
	return slices.ContainsFunc(Kinds, func(k Kind) bool { return k.Group == group && k.Resource == resource })
}

func (a *Archive) othersOf(ctx context.Context, resource schema.GroupVersionResource, kind, namespace string) ([]LeftOut, error) {
	if resource.Group != "" {
		kind += "." + resource.Group
	}
	list, err := listAll(ctx, metav1.ListOptions{Limit: a.options.PageSize},
		func(ctx context.Context, opts metav1.ListOptions) ([]metav1.PartialObjectMetadata, string, error) {
			page, err := a.options.Metadata.Resource(resource).Namespace(namespace).List(ctx, opts)
			if err != nil {
				return nil, "", err
			}
			return page.Items, page.Continue, nil
		})
	var status apierrors.APIStatus
	switch {
	case apierrors.IsForbidden(err):
		return []LeftOut{{Kind: kind, Reason: notListed}}, nil
	case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err):
		return nil, nil // the kind has gone since
	case errors.As(err, &status):
		return []LeftOut{{Kind: kind, Reason: "it could not be listed: " + err.Error()}}, nil
	case err != nil:
		return nil, fmt.Errorf("list %s: %w", resource.GroupResource(), err)
	}
	var all []LeftOut
	for i := range list {
		if metav1.GetControllerOfNoCopy(&list[i]) == nil { // else what controls it is kept, or is listed itself
			all = append(all, LeftOut{Kind: kind, Name: list[i].Name, Reason: "archives hold no objects of this kind"})
		}
	}
	return all, nil
}

// notListed is the reason for a kind of which nothing is known.
const notListed = "the reaper may not list this kind, so it is not known whether there were any"
