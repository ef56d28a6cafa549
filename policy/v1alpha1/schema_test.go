package v1alpha1

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

var update = flag.Bool("update", false, "write the JSON Schema")

const (
	schemaFile = "../../docs/policy.schema.json"
	schemaURL  = "https://raw.githubusercontent.com/dexorder/agent-lifecycle/main/docs/policy.schema.json"
)

// The schema is generated here and not by a program of its own: only tests depend on the generator.
func TestSchemaIsUpToDate(t *testing.T) {
	want := generateSchema(t)
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the schema differs from the types; run go generate in this directory")
	}
}

func generateSchema(t *testing.T) []byte {
	t.Helper()
	r := &jsonschema.Reflector{ExpandedStruct: true, Mapper: schemaOf}
	if err := r.AddGoComments(reflect.TypeFor[LifecyclePolicy]().PkgPath(), ".", jsonschema.WithFullComment()); err != nil {
		t.Fatal(err)
	}
	// Comments are wrapped for the width of the source.
	wrap := regexp.MustCompile(`(\S)\n(\S)`)
	for name, comment := range r.CommentMap {
		r.CommentMap[name] = wrap.ReplaceAllString(comment, "$1 $2")
	}
	schema := r.Reflect(&LifecyclePolicy{})
	schema.ID = schemaURL

	// What the types do not say.
	set := func(s *jsonschema.Schema, property string, change func(*jsonschema.Schema)) {
		t.Helper()
		p, found := s.Properties.Get(property)
		if !found {
			t.Fatalf("no property %s", property)
		}
		change(p)
	}
	set(schema, "apiVersion", func(s *jsonschema.Schema) { s.Const = APIVersion })
	set(schema, "kind", func(s *jsonschema.Schema) { s.Const = Kind })
	schema.Required = append([]string{"apiVersion", "kind"}, schema.Required...)
	set(schema, "tiers", func(s *jsonschema.Schema) { s.PropertyNames = enum(lifecycle.UserTypes()) })
	defs := schema.Definitions
	set(defs["PodSecurity"], "level", func(s *jsonschema.Schema) { s.Enum = enum(podSecurityLevels()).Enum })
	set(defs["Volumes"], "types", func(s *jsonschema.Schema) { s.Items = enum(volumeTypes()) })
	set(defs["WorkloadKind"], "kinds", func(s *jsonschema.Schema) { s.Items = enum(workloadKinds()) })
	defs["Profile"].Required = append(defs["Profile"].Required, "rules")
	defs["Rules"].Required = append(defs["Rules"].Required, "image-allowlist")

	data, err := json.MarshalIndent(schema, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(data, '\n')
}

// schemaOf maps the types that are not what they look like.
func schemaOf(t reflect.Type) *jsonschema.Schema {
	quantity := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}}}
	resources := &jsonschema.Schema{Type: "object", AdditionalProperties: quantity}
	switch t {
	case reflect.TypeFor[Enforcement]():
		return enum(enforcements())
	case reflect.TypeFor[SidecarMode]():
		return enum(sidecarModes())
	case reflect.TypeFor[Shutdown]():
		return enum(shutdowns())
	case reflect.TypeFor[Storage]():
		return enum(storages())
	case reflect.TypeFor[RestartRules]():
		return enum(restartRules())
	case reflect.TypeFor[ReaperMode]():
		return enum(reaperModes())
	case reflect.TypeFor[DriftMode]():
		return enum(driftModes())
	case reflect.TypeFor[Adoption]():
		return enum(adoptions())
	case reflect.TypeFor[lifecycle.UserType]():
		return enum(lifecycle.UserTypes())
	case reflect.TypeFor[metav1.Duration]():
		return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(h|m|s|ms))+$`}
	case reflect.TypeFor[metav1.Time]():
		return &jsonschema.Schema{Type: "string", Format: "date-time"}
	case reflect.TypeFor[resource.Quantity]():
		return quantity
	case reflect.TypeFor[corev1.ResourceList]():
		return resources
	case reflect.TypeFor[corev1.ResourceRequirements]():
		properties := jsonschema.NewProperties()
		properties.Set("limits", resources)
		properties.Set("requests", resources)
		return &jsonschema.Schema{Type: "object", Properties: properties, AdditionalProperties: jsonschema.FalseSchema}
	}
	return nil
}

func enum[T ~string](values []T) *jsonschema.Schema {
	s := &jsonschema.Schema{Type: "string"}
	for _, v := range values {
		s.Enum = append(s.Enum, string(v))
	}
	return s
}

func TestExampleNamesItsSchema(t *testing.T) {
	first, _, _ := strings.Cut(string(Example()), "\n")
	if want := "# yaml-language-server: $schema=" + schemaURL; first != want {
		t.Errorf("the example begins with %q, want %q", first, want)
	}
}

func TestSchema(t *testing.T) {
	schema := compileSchema(t)
	for name, data := range map[string]string{"example": string(Example()), "minimal": minimal, "explicit": explicit} {
		if err := schema.Validate(document(t, data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct{ from, to string }{
		{"apiVersion: lifecycle.dexorder.io/v1alpha1", ""},
		{"apiVersion: lifecycle.dexorder.io/v1alpha1", "apiVersion: v1"},
		{"kind: LifecyclePolicy", "kind: ConfigMap"},
		{"sidecar:", "sidecar:\n  mode: Never"},
		{"restartRules: auto", "restartRules: always"},
		{"restartRules: auto", "restartRule: auto"},
		{"restartRules: auto", "restartRules:"},
		{"anonymous: {", "nobody: {"},
		{"storage: Delete", "storage: delete"},
		{"idleTimeout: 60m", "idleTimeout: 60"},
		{"grace: 10s", "grace: ten seconds"},
		{"limits: {cpu: 100m, ", "limits: {cpu: [1], "},
		{"level: restricted", "level: strict"},
		{"{enforcement: enforce, max: 1}", "{enforcement: deny, max: 1}"},
		{"{enforcement: enforce, max: 1}", "{enforcement: enforce, max: one}"},
		{"types: [configMap,", "types: [configmap,"},
		{"kinds: [Deployment]", "kinds: [Pod]"},
		{", images: [ghcr.io/dexorder/*]", ""},
		{"image-allowlist:", "image-denylist:"},
		{"defaultUserType: free", "defaultUserType: gold"},
		{"adoption: warn", "adoption: audit"},
		{"image: ghcr.io/dexorder/lifecycle-sidecar:v0.1.0", ""},
	} {
		data := strings.Replace(explicit, tt.from, tt.to, 1)
		if data == explicit {
			t.Errorf("%q is not in the file", tt.from)
		} else if err := schema.Validate(document(t, data)); err == nil {
			t.Errorf("the schema accepts %q in place of %q", tt.to, tt.from)
		}
	}
}

func compileSchema(t *testing.T) *validator.Schema {
	t.Helper()
	data, err := os.ReadFile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := validator.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource(schemaURL, parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func document(t *testing.T, data string) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
