package v1alpha1

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/policy/image"
)

func oneOf[T ~string](path *field.Path, value T, known []T) field.ErrorList {
	if slices.Contains(known, value) {
		return nil
	}
	return field.ErrorList{field.NotSupported(path, string(value), known)}
}

func eachOneOf(path *field.Path, values, known []string) field.ErrorList {
	var errs field.ErrorList
	for i, v := range values {
		errs = append(errs, oneOf(path.Index(i), v, known)...)
	}
	return append(errs, unique(path, values)...)
}

func unique[T ~string](path *field.Path, values []T) field.ErrorList {
	var errs field.ErrorList
	for i, v := range values {
		if slices.Contains(values[:i], v) {
			errs = append(errs, field.Duplicate(path.Index(i), string(v)))
		}
	}
	return errs
}

func validateAllowlist(path *field.Path, entries []string) field.ErrorList {
	if len(entries) == 0 {
		return field.ErrorList{field.Required(path, "at least one entry, such as registry.example.com/agents/*")}
	}
	var errs field.ErrorList
	for i, s := range entries {
		if _, err := image.ParseEntry(s); err != nil {
			errs = append(errs, field.Invalid(path.Index(i), s, err.Error()))
		}
	}
	return append(errs, unique(path, entries)...)
}

func validateQuantities(path *field.Path, list corev1.ResourceList) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		at := child(path, string(name))
		errs = append(errs, validateResourceName(at, name)...)
		if quantity := list[name]; quantity.Sign() <= 0 {
			errs = append(errs, field.Invalid(at, quantity.String(), "must be more than 0"))
		}
	}
	return errs
}

func validateResourceNames(path *field.Path, names []corev1.ResourceName) field.ErrorList {
	var errs field.ErrorList
	for i, name := range names {
		errs = append(errs, validateResourceName(path.Index(i), name)...)
	}
	return append(errs, unique(path, names)...)
}

func validateResourceName(path *field.Path, name corev1.ResourceName) field.ErrorList {
	return invalid(path, string(name), validation.IsQualifiedName(string(name)))
}

func invalid(path *field.Path, value string, reasons []string) field.ErrorList {
	if len(reasons) == 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, value, strings.Join(reasons, "; "))}
}

// printable writes a value of the file within a message.
func printable(value any) string {
	const most = 63
	s := fmt.Sprint(value)
	if len(s) > most {
		s = s[:most]
	}
	return strconv.Quote(s)
}
