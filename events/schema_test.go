package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
)

var update = flag.Bool("update", false, "write the JSON Schema")

const (
	pageFile   = "../docs/events.md"
	schemaFile = "../docs/events.schema.json"
	schemaURL  = "https://raw.githubusercontent.com/dexorder/agent-lifecycle/main/docs/events.schema.json"
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

// dataOf is what goes with a type, and which of it always does.
func dataOf(t Type) (data any, required []string) {
	switch {
	case t == ReaperCapExceeded:
		return CapData{}, nil
	case t == BreakerOpened:
		return BreakerData{}, []string{"reason"}
	case t == BreakerClosed:
		return BreakerData{}, nil
	case strings.HasPrefix(string(t), "agent."):
		switch t {
		case AgentRunning, AgentIdle, AgentShutdown:
			required = []string{"pod", "time"}
		case AgentWarning:
			required = []string{"pod", "deadline"}
		}
		return AgentData{}, required
	}
	if !t.once() {
		required = append(required, "since")
	}
	switch t {
	case NamespaceUnhealthy, NamespaceKept, NamespaceUnmarked:
		required = append(required, "reason")
	case NamespaceStuck, NamespaceDrift:
		required = append(required, "details")
	}
	return NamespaceData{}, required
}

type object = map[string]any

func generateSchema(t *testing.T) []byte {
	t.Helper()
	text := object{"type": "string", "minLength": 1}
	defs := object{"Event": object{
		"description": "A CloudEvent 1.0 in JSON.",
		"type":        "object",
		"properties": object{
			"specversion": object{"const": "1.0"}, "id": text, "source": text, "type": text, "subject": text,
			"time": object{"type": "string", "format": "date-time"}, "datacontenttype": object{"const": "application/json"},
			"data": object{"type": "object"},
		},
		"required": []string{"specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"},
	}}
	r := &jsonschema.Reflector{Anonymous: true, DoNotReference: true, AllowAdditionalProperties: true}
	if err := r.AddGoComments(reflect.TypeFor[Event]().PkgPath(), "."); err != nil {
		t.Fatal(err)
	}
	for name, comment := range r.CommentMap {
		r.CommentMap[name] = strings.Join(strings.Fields(comment), " ")
	}
	says := comments(t)
	var all []any
	for _, kind := range Types() {
		data, required := dataOf(kind)
		name := reflect.TypeOf(data).Name()
		if defs[name] == nil {
			schema := r.Reflect(data)
			schema.Version = ""
			defs[name] = schema
		}
		ofData := object{"$ref": "#/$defs/" + name}
		if len(required) > 0 {
			ofData["required"] = required
		}
		defs[string(kind)] = object{
			"description": says[kind],
			"$ref":        "#/$defs/Event",
			"properties":  object{"type": object{"const": kind}, "data": ofData},
		}
		all = append(all, object{"$ref": "#/$defs/" + string(kind)})
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", "  ")
	schema := object{"$schema": jsonschema.Version, "$id": schemaURL, "$defs": defs, "oneOf": all}
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// comments returns what the source says of each type.
func comments(t *testing.T) map[Type]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	says := map[Type]string{}
	for _, d := range file.Decls {
		group, ok := d.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		for _, s := range group.Specs {
			spec := s.(*ast.ValueSpec)
			doc := spec.Doc
			if doc == nil {
				doc = group.Doc
			}
			value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			says[Type(value)] = strings.Join(strings.Fields(doc.Text()), " ")
		}
	}
	for _, kind := range Types() {
		if says[kind] == "" {
			t.Errorf("type %s has no comment", kind)
		}
	}
	if len(says) != len(Types()) {
		t.Errorf("%d types are declared, and %d in Types", len(says), len(Types()))
	}
	return says
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
	c.AssertFormat()
	if err := c.AddResource(schemaURL, parsed); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(schemaURL)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func validate(t *testing.T, schema *validator.Schema, data []byte) error {
	t.Helper()
	document, err := validator.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("%v:\n%s", err, data)
	}
	return schema.Validate(document)
}

// full is an event with everything set that its type can have.
func full(t Type) Event {
	code := int32(42)
	switch data, _ := dataOf(t); data.(type) {
	case NamespaceData:
		return Namespace("/test", t, NamespaceData{
			Namespace: "agent-ceo", UID: "u1", Role: "ceo", Org: "acme", Environment: "prod", Reason: "because",
			Details: []string{"one"}, Since: start, LastActivity: start,
		}, start)
	case AgentData:
		return Agent("/test", t, AgentData{
			Namespace: "dexorder-agents", Deployment: "a", UID: "u2", UserType: "free", Pod: "a-1", ExitCode: &code,
			Reason: "because", Time: start, Deadline: start,
		}, start)
	case BreakerData:
		return Breaker("/test", t, BreakerData{
			Namespace: "dexorder-system", ConfigMap: "lifecycle-breaker", UID: "u3", By: "alice", Reason: "because", Since: start,
		}, start)
	default:
		return Cap("/test", CapData{Kind: "Namespace", Candidates: 3, Allowed: 2, Total: 4, Reason: "because", Since: start}, start)
	}
}

func TestSchema(t *testing.T) {
	schema := compileSchema(t)
	for _, kind := range Types() {
		e := full(kind)
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, schema, data); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		for member := range strings.SplitSeq("specversion id source type subject time datacontenttype data", " ") {
			if err := validate(t, schema, without(t, data, member)); err == nil {
				t.Errorf("%s: the schema accepts it without %s", kind, member)
			}
		}
		_, required := dataOf(kind)
		for _, member := range required {
			if err := validate(t, schema, without(t, data, "data", member)); err == nil {
				t.Errorf("%s: the schema accepts it without data.%s", kind, member)
			}
		}
		e.Type = "namespace.unheard-of"
		if data, err = json.Marshal(e); err != nil {
			t.Fatal(err)
		}
		if err := validate(t, schema, data); err == nil {
			t.Errorf("the schema accepts type %s", e.Type)
		}
	}
	// With as little as its type can have.
	least := Namespace("/test", NamespaceCreated, NamespaceData{Namespace: "agent-ceo", UID: "u1"}, time.Now())
	data, err := json.Marshal(least)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, schema, data); err != nil {
		t.Error(err)
	}
}

// without removes a member of the object, or of one in it.
func without(t *testing.T, data []byte, path ...string) []byte {
	t.Helper()
	var whole object
	if err := json.Unmarshal(data, &whole); err != nil {
		t.Fatal(err)
	}
	in := whole
	for _, name := range path[:len(path)-1] {
		in = in[name].(object)
	}
	delete(in, path[len(path)-1])
	out, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// The page documents each type with an example that is one: it is what the package makes of the example's own data.
func TestPage(t *testing.T) {
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	schema := compileSchema(t)
	var shown []Type
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllSubmatch(page, -1) {
		if err := validate(t, schema, block[1]); err != nil {
			t.Errorf("%v:\n%s", err, block[1])
			continue
		}
		var example struct {
			Source string
			Type   Type
			Time   time.Time
			Data   json.RawMessage
		}
		if err := json.Unmarshal(block[1], &example); err != nil {
			t.Fatal(err)
		}
		shown = append(shown, example.Type)
		var again Event
		switch data, _ := dataOf(example.Type); data.(type) {
		case NamespaceData:
			again = Namespace(example.Source, example.Type, decode[NamespaceData](t, example.Data), example.Time)
		case AgentData:
			again = Agent(example.Source, example.Type, decode[AgentData](t, example.Data), example.Time)
		case BreakerData:
			again = Breaker(example.Source, example.Type, decode[BreakerData](t, example.Data), example.Time)
		default:
			again = Cap(example.Source, decode[CapData](t, example.Data), example.Time)
		}
		got, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		var want bytes.Buffer
		if err := json.Compact(&want, block[1]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("the page shows\n%s\nthe package makes\n%s", want.Bytes(), got)
		}
	}
	if !slices.Equal(shown, Types()) {
		t.Errorf("the page has examples of\n%q, want one of each, in this order:\n%q", shown, Types())
	}
	for _, kind := range Types() {
		if !bytes.Contains(page, []byte("| `"+string(kind)+"` |")) {
			t.Errorf("the page's table lacks %s", kind)
		}
	}
}

func decode[T any](t *testing.T, data []byte) (out T) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
