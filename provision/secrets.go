package provision

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// SecretUse is a Secret that something in the namespace names.
type SecretUse struct {
	Name string

	// Optional says that what names it starts without.
	Optional bool
}

// Secrets lists the Secrets that are named, by name.
func (r *Rendered) Secrets() ([]SecretUse, error) {
	required := map[string]bool{}
	use := func(name string, optional *bool) {
		if name != "" {
			required[name] = required[name] || optional == nil || !*optional
		}
	}
	for _, o := range r.Objects {
		path := []string{"spec", "template", "spec"}
		switch o.GetKind() {
		case kindDeployment, kindStatefulSet:
		case kindCronJob:
			path = append([]string{"spec", "jobTemplate"}, path...)
		default:
			continue
		}
		fields, _, err := unstructured.NestedMap(o.Object, path...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(o), err)
		}
		var spec corev1.PodSpec
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &spec); err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(o), err)
		}
		secretsOf(&spec, use)
	}
	var uses []SecretUse
	for _, name := range slices.Sorted(maps.Keys(required)) {
		uses = append(uses, SecretUse{Name: name, Optional: !required[name]})
	}
	return uses, nil
}

func secretsOf(spec *corev1.PodSpec, use func(name string, optional *bool)) {
	for _, s := range spec.ImagePullSecrets {
		use(s.Name, new(true)) // the image may need none
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				use(from.SecretRef.Name, from.SecretRef.Optional)
			}
		}
		for _, env := range c.Env {
			if env.ValueFrom != nil && env.ValueFrom.SecretKeyRef != nil {
				use(env.ValueFrom.SecretKeyRef.Name, env.ValueFrom.SecretKeyRef.Optional)
			}
		}
	}
	for i := range spec.Volumes {
		volume := &spec.Volumes[i]
		if volume.Secret != nil {
			use(volume.Secret.SecretName, volume.Secret.Optional)
		}
		if volume.Projected != nil {
			for _, source := range volume.Projected.Sources {
				if source.Secret != nil {
					use(source.Secret.Name, source.Secret.Optional)
				}
			}
		}
	}
}
