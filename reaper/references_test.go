package reaper

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestReferComplete goes through everything that a Pod can say, as the API types have it: what names a Secret or a ConfigMap of its
// namespace counts as a reference. A field that a later Kubernetes brings fails here.
func TestReferComplete(t *testing.T) {
	found := 0
	eachString(reflect.TypeFor[corev1.PodSpec](), nil, 0, func(path []step) {
		kind := referred(path)
		if kind == "" {
			return
		}
		found++
		var spec corev1.PodSpec
		put(reflect.ValueOf(&spec).Elem(), path, "it")
		s := &surroundings{references: map[string]bool{}}
		s.refer(&spec)
		if !s.references[kind+"/it"] || len(s.references) != 1 {
			t.Errorf("%s: refers to %v, want %s/it", pathOf(path), s.references, kind)
		}
	})
	if found < 25 {
		t.Errorf("%d fields name a Secret or a ConfigMap; there are more", found)
	}
}

type step struct {
	field  string
	index  int
	parent reflect.Type
}

// eachString calls f with the way to every string in a type.
func eachString(t reflect.Type, path []step, depth int, f func([]step)) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		eachString(t.Elem(), path, depth, f)
	case reflect.String:
		f(path)
	case reflect.Struct:
		if depth > 8 {
			return
		}
		for i := range t.NumField() {
			if sf := t.Field(i); sf.IsExported() {
				eachString(sf.Type, append(path[:len(path):len(path)], step{sf.Name, i, t}), depth+1, f)
			}
		}
	}
}

// referred says of which kind the object is whose name a field holds; "" if it holds none.
func referred(path []step) string {
	last := path[len(path)-1]
	switch {
	case last.field == "SecretName":
		return "Secret"
	case last.field != "Name":
		return ""
	}
	for _, s := range path {
		switch {
		case strings.Contains(s.field, "ConfigMap"):
			return "ConfigMap"
		case strings.Contains(s.field, "Secret"):
			return "Secret"
		}
	}
	return ""
}

func put(v reflect.Value, path []step, value string) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		put(v.Elem(), path, value)
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		}
		put(v.Index(0), path, value)
	case reflect.Struct:
		put(v.Field(path[0].index), path[1:], value)
	case reflect.String:
		v.SetString(value)
	}
}

func pathOf(path []step) string {
	names := make([]string, 0, len(path))
	for _, s := range path {
		names = append(names, s.field)
	}
	return strings.Join(names, ".")
}
