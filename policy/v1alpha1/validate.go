package v1alpha1

import (
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateType returns errors if the tree is of another type altogether.
func validateType(tree map[string]any) field.ErrorList {
	var errs field.ErrorList
	if got, found := tree["apiVersion"]; found && got != APIVersion {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), got, []string{APIVersion}))
	}
	if got, found := tree["kind"]; found && got != Kind {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), got, []string{Kind}))
	}
	return errs
}

func validate(file *LifecyclePolicy) field.ErrorList {
	return nil
}
