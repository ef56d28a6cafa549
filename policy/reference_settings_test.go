package policy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// settings writes the tables of the reference: names, types and meaning by the schema, defaults and bounds by the decoder.
type settings struct {
	t        *testing.T
	schema   *jsonschema.Schema
	given    any // a file that says no more than it must
	defaults any // the same, decoded
}

const leastPolicy = `
apiVersion: lifecycle.dexorder.io/v1alpha1
kind: LifecyclePolicy
sidecar: {image: "ghcr.io/dexorder/lifecycle-sidecar:v0.1.0"}
profiles:
- name: agents
  namespaces: {names: [agents]}
  rules: {image-allowlist: {images: [ghcr.io/dexorder/*]}}
`

func readSchema(t *testing.T) *settings {
	t.Helper()
	s := &settings{t: t, schema: &jsonschema.Schema{}}
	data := must(os.ReadFile("../docs/policy.schema.json"))(t)
	if err := json.Unmarshal(data, s.schema); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(leastPolicy), &s.given); err != nil {
		t.Fatal(err)
	}
	s.defaults = tree(t, must(v1alpha1.Decode([]byte(leastPolicy)))(t))
	return s
}

// tree is a value as JSON has it.
func tree(t *testing.T, v any) any {
	t.Helper()
	var decoded any
	if err := json.Unmarshal(must(json.Marshal(v))(t), &decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

const tableHead = "| setting | value | default | |\n|---|---|---|---|\n"

// file writes a section for each field of the file but the rules.
func (s *settings) file(out *bytes.Buffer) {
	for pair := s.schema.Properties.Oldest(); pair != nil; pair = pair.Next() {
		name, property := pair.Key, pair.Value
		path := []string{name}
		switch {
		case name == "apiVersion" || name == "kind":
			continue
		case name == "tiers":
			path = append(path, string(lifecycle.Anonymous))
			property = property.AdditionalProperties
		case name == "profiles":
			path = append(path, "0")
			property = property.Items
		}
		definition := s.definition(property)
		fmt.Fprintf(out, "### %s\n\n", name)
		if definition != nil {
			fmt.Fprintf(out, "%s\n\n", meaning(name, pair.Value))
		}
		if name == "tiers" {
			s.tiers(out)
		}
		out.WriteString(tableHead)
		if definition != nil {
			s.rows(out, definition, path, "")
		} else {
			s.row(out, property, path, name)
		}
		out.WriteString("\n")
	}
}

// tiers writes the defaults, which differ from one user type to the next.
func (s *settings) tiers(out *bytes.Buffer) {
	out.WriteString("| user type | shutdown | idleTimeout | storage |\n|---|---|---|---|\n")
	for _, userType := range lifecycle.UserTypes() {
		get := func(name string) string { return printed(at(s.defaults, []string{"tiers", string(userType), name})) }
		timeout := get("idleTimeout")
		if timeout == "`0s`" {
			timeout = ""
		}
		fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", userType, get("shutdown"), timeout, get("storage"))
	}
	out.WriteString("\n")
}

// rule writes the settings of a rule that others have not.
func (s *settings) rule(out *bytes.Buffer, id string) {
	property, found := s.schema.Definitions["Rules"].Properties.Get(id)
	if !found {
		s.t.Fatalf("rule %s is not in the schema", id)
	}
	var rows bytes.Buffer
	s.rows(&rows, s.definition(property), []string{"profiles", "0", "rules", id}, "")
	if rows.Len() > 0 {
		fmt.Fprintf(out, "\n%s%s", tableHead, rows.String())
	}
}

func (s *settings) definition(property *jsonschema.Schema) *jsonschema.Schema {
	name, found := strings.CutPrefix(property.Ref, "#/$defs/")
	if !found {
		return nil
	}
	return s.schema.Definitions[name]
}

// rows writes the fields of an object, and those of what it holds by their path from it.
func (s *settings) rows(out *bytes.Buffer, object *jsonschema.Schema, path []string, prefix string) {
	for pair := object.Properties.Oldest(); pair != nil; pair = pair.Next() {
		name, property := pair.Key, pair.Value
		if name == "rules" || name == "enforcement" {
			continue
		}
		below := slices.Concat(path, []string{name})
		definition := s.definition(property)
		if definition == nil {
			s.row(out, property, below, prefix+name)
			continue
		}
		if property.Description != "" {
			fmt.Fprintf(out, "| `%s` | | | %s |\n", prefix+name, cell(meaning(name, property)))
		}
		s.rows(out, definition, below, prefix+name+".")
	}
}

func (s *settings) row(out *bytes.Buffer, property *jsonschema.Schema, path []string, shown string) {
	value, standard := valueOf(property), ""
	if path[0] != "tiers" && at(s.given, path) == nil {
		standard = printed(at(s.defaults, path))
	}
	says := meaning(path[len(path)-1], property)
	if property.Type == "boolean" && standard == "" && strings.Contains(says, "Default: false.") {
		standard = "`false`" // and left out of JSON
	}
	says = without(says, standard)
	for _, bound := range s.bounds(property, path) {
		value += ", " + bound
		says = strings.ReplaceAll(says, " A"+strings.TrimPrefix(bound, "a")+".", "")
	}
	if strings.Contains(says, "Default:") && len(standard) > len(says)/2 {
		standard = "" // the text says it shorter
	}
	fmt.Fprintf(out, "| `%s` | %s | %s | %s |\n", shown, value, standard, cell(says))
}

// without takes the sentence about the default out of a text, if it says nothing but what the table does.
func without(says, standard string) string {
	plain := strings.ReplaceAll(standard, "`", "")
	same := []string{plain}
	if d, err := time.ParseDuration(plain); err == nil {
		same = append(same, fmt.Sprintf("%gm", d.Minutes()), fmt.Sprintf("%gs", d.Seconds()))
	}
	for _, value := range same {
		says = strings.TrimSpace(strings.Replace(says, "Default: "+value+".", "", 1))
	}
	return strings.ReplaceAll(says, "  ", " ")
}

func valueOf(property *jsonschema.Schema) string {
	switch {
	case len(property.Enum) > 0:
		var values []string
		for _, v := range property.Enum {
			values = append(values, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(values, ", ")
	case property.Format == "date-time":
		return "time"
	case property.Pattern != "":
		return "duration"
	case property.Items != nil && len(property.Items.Enum) > 0 && len(property.Items.Enum) < 10:
		return "list of " + valueOf(property.Items)
	case property.Items != nil:
		return "list"
	case property.Properties != nil && property.Properties.Len() > 0:
		return "resources"
	case property.AdditionalProperties != nil:
		return "quantity by resource"
	}
	return property.Type
}

// bounds asks the decoder what it thinks of values that are surely out of them.
func (s *settings) bounds(property *jsonschema.Schema, path []string) []string {
	var low, high any
	switch {
	case property.Pattern != "":
		low, high = "-1s", "99999h"
	case property.Type == "integer":
		low, high = -1, 1<<30
	default:
		return nil
	}
	var bounds []string
	for _, value := range []any{low, high} {
		if says := s.complaint(path, value); says != "" && says != "at least 0s" {
			bounds = append(bounds, says)
		}
	}
	return bounds
}

func (s *settings) complaint(path []string, value any) string {
	var file any
	if err := yaml.Unmarshal(v1alpha1.Example(), &file); err != nil {
		s.t.Fatal(err)
	}
	parent, ok := at(file, path[:len(path)-1]).(map[string]any)
	if !ok { // the example leaves it out
		parent = map[string]any{}
		put(s.t, file, path[:len(path)-1], parent)
	}
	parent[path[len(path)-1]] = value
	_, err := v1alpha1.Decode(must(json.Marshal(file))(s.t))
	where := strings.ReplaceAll(strings.Join(path, "."), ".0.", "[0].")
	for _, e := range unwrapped(err) {
		if detail, found := strings.CutPrefix(e.Detail, "must be "); found && e.Field == where {
			return short(detail)
		}
	}
	return ""
}

func unwrapped(err error) []*field.Error {
	var all []*field.Error
	var many interface{ Unwrap() []error }
	if !errors.As(err, &many) {
		return nil
	}
	for _, e := range many.Unwrap() {
		var one *field.Error
		if errors.As(e, &one) {
			all = append(all, one)
		}
	}
	return all
}

// at finds what a path leads to, nil if nothing.
func at(value any, path []string) any {
	for _, step := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[step]
		case []any:
			value = v[0]
		default:
			return nil
		}
	}
	return value
}

func put(t *testing.T, file any, path []string, value any) {
	t.Helper()
	parent, ok := at(file, path[:len(path)-1]).(map[string]any)
	if !ok {
		t.Fatalf("%s: the example has no such object", strings.Join(path, "."))
	}
	parent[path[len(path)-1]] = value
}

// printed shows a default; one that is an object is told by the text.
func printed(value any) string {
	switch v := value.(type) {
	case nil, map[string]any:
		return ""
	case []any:
		var each []string
		for _, e := range v {
			each = append(each, printed(e))
		}
		return strings.Join(each, ", ")
	}
	return "`" + short(fmt.Sprint(value)) + "`"
}

var zeros = regexp.MustCompile(`(\d[hm])0[ms](0s)?`)

// short takes the zeros off a duration as Go prints it: 1m0s, 1h0m0s.
func short(text string) string { return zeros.ReplaceAllString(text, "$1") }

// choice is a sentence that says nothing but which values there are.
var choice = regexp.MustCompile(`^[A-Za-z]+ is [A-Za-z]+(, [A-Za-z]+)* or [A-Za-z]+\. ?`)

// meaning is the comment on a field, without the field's name in Go and the values that the table has.
func meaning(name string, property *jsonschema.Schema) string {
	text := property.Description
	if len(property.Enum) > 0 {
		text = choice.ReplaceAllString(text, "")
	}
	first, rest, _ := strings.Cut(text, " ")
	verb, after, _ := strings.Cut(rest, " ")
	if strings.EqualFold(first, name) && (verb == "is" || verb == "are") && after != "" {
		text = strings.ToUpper(after[:1]) + after[1:]
	}
	return text
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
