package v1alpha1

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/workload"
)

// unmarshal reads the tree over the built-in defaults and returns an error for every field that does not fit.
//
// The JSON package stops at the first error. So the value that it objects to is taken out of the tree, and the rest is
// tried again.
func unmarshal(tree map[string]any) (*LifecyclePolicy, field.ErrorList) {
	var errs field.ErrorList
	for {
		file := builtIn()
		data, err := json.Marshal(tree, json.Deterministic(true))
		if err != nil {
			return file, append(errs, field.InternalError(nil, err))
		}
		err = json.Unmarshal(data, file, json.RejectUnknownMembers(true), json.WithUnmarshalers(workload.Quantities()))
		if err == nil {
			return file, errs
		}
		var misfit *json.SemanticError
		if !errors.As(err, &misfit) {
			return file, append(errs, field.InternalError(nil, err))
		}
		path, value, removed := remove(tree, misfit.JSONPointer)
		errs = append(errs, explain(path, value, misfit))
		if !removed || len(errs) > maxErrors {
			return file, errs
		}
	}
}

// remove takes the value under the pointer out of the tree. The elements after it in a list keep their index.
func remove(tree map[string]any, pointer jsontext.Pointer) (path *field.Path, value any, removed bool) {
	var parent any
	var last string
	value = tree
	for token := range pointer.Tokens() {
		parent, last = value, token
		switch within := parent.(type) {
		case map[string]any:
			path, value = child(path, token), within[token]
		case []any:
			i, err := strconv.Atoi(token)
			if err != nil || i < 0 || i >= len(within) {
				return path, nil, false
			}
			path, value = path.Index(i), within[i]
		default:
			return path, nil, false
		}
	}
	switch within := parent.(type) {
	case map[string]any:
		delete(within, last)
	case []any:
		i, _ := strconv.Atoi(last)
		within[i] = nil
	}
	return path, value, value != nil
}

func explain(path *field.Path, value any, misfit *json.SemanticError) *field.Error {
	if errors.Is(misfit.Err, json.ErrUnknownName) {
		return field.Forbidden(path, "unknown field; known here are "+strings.Join(fieldsOf(misfit.GoType), ", "))
	}
	switch value.(type) {
	case map[string]any, []any:
		value = field.OmitValueType{}
	}
	return field.TypeInvalid(path, value, "must be "+wanted(misfit.GoType))
}

// wanted says in the words of YAML what a Go type takes.
func wanted(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		return "a duration, such as 90s, 15m or 1h30m"
	case reflect.TypeFor[metav1.Time]():
		return "a time, such as 2026-01-31T00:00:00Z"
	case reflect.TypeFor[resource.Quantity]():
		return "a quantity, such as 100m, 2 or 64Mi"
	}
	switch t.Kind() {
	case reflect.String:
		return "a string; put it in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Int32:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Pointer:
		return wanted(t.Elem())
	default:
		return "a mapping"
	}
}

// fieldsOf lists the fields of a struct under their names in the file, sorted.
func fieldsOf(t reflect.Type) []string {
	var names []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// child leads to a field. A name that comes from the file may be anything.
func child(path *field.Path, name string) *field.Path {
	const most = 63
	plain := name != "" && len(name) <= most && strings.IndexFunc(name, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) < 0
	if !plain {
		name = strconv.QuoteToASCII(name[:min(len(name), most)])
	}
	return path.Child(name)
}
