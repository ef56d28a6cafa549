package manifests

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// Applier applies objects of any kind as `kubectl apply --server-side` does.
type Applier struct {
	objects dynamic.Interface
	mapper  meta.RESTMapper
}

// NewApplier returns an Applier with somebody's access.
func NewApplier(config *rest.Config) (*Applier, error) {
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return nil, err
	}
	objects, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, err
	}
	return &Applier{objects: objects, mapper: mapper}, nil
}

// Apply applies objects in order and returns what is stored. It stops at the first that is refused.
func (a *Applier) Apply(ctx context.Context, objects []*unstructured.Unstructured) ([]*unstructured.Unstructured, error) {
	var result []*unstructured.Unstructured
	for _, object := range objects {
		stored, err := a.apply(ctx, object)
		if err != nil {
			return result, fmt.Errorf("apply %s %q: %w", object.GetKind(), object.GetName(), err)
		}
		result = append(result, stored)
	}
	return result, nil
}

func (a *Applier) apply(ctx context.Context, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	gvk := object.GroupVersionKind()
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return nil, err
	}
	var resource dynamic.ResourceInterface = a.objects.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		resource = a.objects.Resource(mapping.Resource).Namespace(object.GetNamespace())
	}
	options := metav1.ApplyOptions{FieldManager: "kubectl", Force: true}
	return resource.Apply(ctx, object.GetName(), object, options)
}
