package reaper

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// wanted is an object of a role's template, for one namespace.
type wanted struct {
	gvk  schema.GroupVersionKind
	name string

	// fields are those that the template has, with values as the API server writes them. Values of a Secret are left out.
	fields map[string]any
}

// id is how the object is named in what is said of it.
func (w *wanted) id() string { return w.gvk.Kind + " " + w.name }

// readTemplate reads the objects of a role's template: YAML documents, whatever the keys under which the ConfigMap has them. A field
// that a kind does not have is an error: what it was meant to say would never be looked at.
func readTemplate(data map[string]string, namespace string) ([]wanted, error) {
	var all []wanted
	var errs []error
	seen := map[string]bool{}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text := strings.ReplaceAll(data[key], lifecycle.NamespacePlaceholder, namespace)
		documents := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
		for n := 1; ; n++ {
			document, err := documents.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, fmt.Errorf("%s, document %d: %w", key, n, err)
			}
			w, err := readWanted(document, namespace)
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("%s, document %d: %w", key, n, err))
				continue
			case w == nil:
				continue
			}
			id := w.gvk.GroupKind().String() + "/" + w.name
			if seen[id] {
				errs = append(errs, fmt.Errorf("%s, document %d: %s is there twice", key, n, w.id()))
			}
			seen[id] = true
			all = append(all, *w)
		}
	}
	return all, errors.Join(errs...)
}

// readWanted reads one document; nil if there is nothing in it.
func readWanted(document []byte, namespace string) (*wanted, error) {
	content, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(bytes.TrimSpace(content), []byte("null")) {
		return nil, nil
	}
	var raw map[string]any
	var meta metav1.PartialObjectMetadata
	if err := errors.Join(json.Unmarshal(content, &raw), json.Unmarshal(content, &meta)); err != nil {
		return nil, fmt.Errorf("it is no object: %w", err)
	}
	w := &wanted{gvk: meta.GroupVersionKind(), name: meta.Name}
	if err := w.identify(&meta, namespace); err != nil {
		return nil, err
	}
	if comparedKindOf(w.gvk) == nil {
		return w, nil // which is said of every namespace
	}
	typed, err := scheme.Scheme.New(w.gvk)
	if err != nil {
		return nil, err
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(raw, typed, true); err != nil {
		return nil, fmt.Errorf("%s: %w", w.id(), err)
	}
	full, err := fieldsOf(typed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", w.id(), err)
	}
	if _, is := typed.(*corev1.Secret); is {
		delete(raw, "stringData")
		if data, has := full["data"]; has {
			raw["data"] = data
		}
	}
	w.fields, _ = shaped(raw, full).(map[string]any)
	for _, key := range []string{"apiVersion", "kind", "status"} {
		delete(w.fields, key)
	}
	if meta, is := w.fields["metadata"].(map[string]any); is {
		maps.DeleteFunc(meta, func(key string, _ any) bool { return key != "labels" && key != "annotations" })
	}
	return w, nil
}

// identify sees to it that a document is an object of the namespace, or the namespace.
func (w *wanted) identify(meta *metav1.PartialObjectMetadata, namespace string) error {
	isNamespace := w.gvk.Kind == "Namespace" && w.gvk.Group == ""
	switch {
	case w.gvk.Kind == "" || w.gvk.Version == "":
		return errors.New("apiVersion and kind are required")
	case isNamespace && w.name == "":
		w.name = namespace
	case w.name == "":
		return fmt.Errorf("%s: metadata.name is required", w.gvk.Kind)
	case isNamespace && w.name != namespace:
		return fmt.Errorf("%s: metadata.name must be %s, or left out", w.id(), lifecycle.NamespacePlaceholder)
	case meta.Namespace != "" && meta.Namespace != namespace:
		return fmt.Errorf("%s: metadata.namespace is %q, and must be %s, or left out", w.id(), meta.Namespace, lifecycle.NamespacePlaceholder)
	}
	return nil
}

// fieldsOf returns an object as the API server writes it, without the values of a Secret: they are neither compared nor printed.
func fieldsOf(o runtime.Object) (map[string]any, error) {
	if s, is := o.(*corev1.Secret); is {
		hidden := *s
		hidden.Data, hidden.StringData = map[string][]byte{}, nil
		for key := range s.Data {
			hidden.Data[key] = nil
		}
		for key := range s.StringData {
			hidden.Data[key] = nil
		}
		o = &hidden
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(o)
}

// unset is a value that the API server leaves out, since it is the one of a field that is not set: false, 0, "" or an empty list.
type unset struct{ value any }

// MarshalJSON implements json.Marshaler.
func (u unset) MarshalJSON() ([]byte, error) { return json.Marshal(u.value) }

// shaped returns the values of full that raw has a field for: raw is what somebody wrote, full is the same as its kind has it.
func shaped(raw, full any) any {
	switch raw := raw.(type) {
	case map[string]any:
		full, is := full.(map[string]any)
		if !is {
			break
		}
		values := map[string]any{}
		for key := range raw {
			switch value, has := full[key]; {
			case has:
				values[key] = shaped(raw[key], value)
			case raw[key] != nil:
				values[key] = unset{raw[key]}
			}
		}
		return values
	case []any:
		full, is := full.([]any)
		if !is || len(raw) != len(full) {
			break
		}
		values := make([]any, len(raw))
		for i := range raw {
			values[i] = shaped(raw[i], full[i])
		}
		return values
	}
	return full
}
