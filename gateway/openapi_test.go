package gateway

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// The description has every route with its methods, every code of a problem, and every field.
func TestOpenAPI(t *testing.T) {
	text, err := os.ReadFile("../docs/agent-gateway.openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths      map[string]map[string]any
		Components struct {
			Responses map[string]struct{ Description string }
			Schemas   map[string]struct{ Properties map[string]any }
		}
	}
	if err := yaml.Unmarshal(text, &api); err != nil {
		t.Fatal(err)
	}
	for verb, methods := range routes {
		path := strings.TrimSuffix(pathPrefix+"{user}/"+verb, "/")
		if verb == "connect" {
			path += "/{path}"
		}
		if api.Paths[path] == nil {
			t.Errorf("path %s is missing", path)
		}
		for _, method := range methods {
			if api.Paths[path][strings.ToLower(method)] == nil {
				t.Errorf("%s %s is missing", method, path)
			}
		}
	}
	if len(api.Paths) != len(routes) {
		t.Errorf("%d paths, want %d", len(api.Paths), len(routes))
	}
	codes := strings.FieldsFunc(api.Components.Responses["Problem"].Description, func(r rune) bool { return strings.ContainsRune(" ,.()", r) })
	for _, p := range problems {
		if !slices.Contains(codes, p.code) {
			t.Errorf("problem code %s is missing", p.code)
		}
	}
	for name, of := range map[string]reflect.Type{"Request": reflect.TypeFor[Request](), "Status": reflect.TypeFor[Status]()} {
		properties := api.Components.Schemas[name].Properties
		for i := range of.NumField() {
			field, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			if properties[field] == nil {
				t.Errorf("%s.%s is missing", name, field)
			}
		}
		if len(properties) != of.NumField() {
			t.Errorf("%s has %d properties, want %d", name, len(properties), of.NumField())
		}
	}
}
