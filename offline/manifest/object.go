package manifest

import (
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Object is one object of a document.
type Object struct {
	// Document that holds the object.
	Document *Document

	// Pointer leads to the object: "" where it is the document, /items/3 in a List.
	Pointer jsontext.Pointer

	GVK schema.GroupVersionKind

	// Name, GenerateName and Namespace as they are written. Any may be empty.
	Name, GenerateName, Namespace string

	JSON []byte

	// Err says why the object is not understood; the fields above hold what is known all the same. Nil if it is.
	Err *Error
}

// Line returns the line of a field of the object, or of its closest parent that is written down. The empty path is the
// object itself.
func (o *Object) Line(field string) int {
	if o.Pointer == "" && field == "" {
		return o.Document.Line
	}
	path := FieldPath(o.Pointer)
	if path != "" && field != "" {
		path += "."
	}
	return o.Document.lineOf(path + field)
}

// maxNesting of Lists within Lists. kubectl writes one level.
const maxNesting = 4

// header is what there is to know of any object.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name         string `json:"name"`
		GenerateName string `json:"generateName"`
		Namespace    string `json:"namespace"`
	} `json:"metadata"`
	Items jsontext.Value `json:"items"`
}

func (d *Document) findObjects() {
	if d.err != nil {
		d.Objects = []*Object{{Document: d, Err: d.err}}
		return
	}
	d.Objects = d.objects(d.JSON, "", schema.GroupVersionKind{}, 0)
}

// objects returns the object in data, or those in its items. A typed List such as DeploymentList need not repeat the
// kind in its items: the default is what they are then.
func (d *Document) objects(data []byte, at jsontext.Pointer, defaults schema.GroupVersionKind, depth int) []*Object {
	o := &Object{Document: d, Pointer: at, JSON: data}
	if kind := jsontext.Value(data).Kind(); kind != '{' {
		o.Err = &Error{Message: fmt.Sprintf("%s is not an object", describe(kind))}
		return []*Object{o}
	}
	var h header
	if err := json.Unmarshal(data, &h); err != nil {
		o.Err = o.DecodeError(err)
		return []*Object{o}
	}
	o.Name, o.GenerateName, o.Namespace = h.Metadata.Name, h.Metadata.GenerateName, h.Metadata.Namespace
	if h.Kind == "" {
		h.Kind = defaults.Kind
		if h.Kind == "" && isKustomization(d.File) {
			h.Kind = kustomization
		}
	}
	if h.APIVersion == "" {
		h.APIVersion = defaults.GroupVersion().String()
	}
	o.GVK = schema.FromAPIVersionAndKind(h.APIVersion, h.Kind)
	if isList(h) {
		return d.items(o, h, depth)
	}
	switch {
	case h.Kind == "":
		o.Err = &Error{Message: "there is no kind, as every Kubernetes object has"}
	case h.APIVersion == "" && h.Kind != kustomization:
		o.Err = &Error{Message: "there is no apiVersion, as every Kubernetes object has"}
	}
	return []*Object{o}
}

// kustomization is a kind that kustomize reads and no cluster does. Its apiVersion and kind may be left out.
const kustomization = "Kustomization"

func isKustomization(file string) bool {
	switch filepath.Base(file) {
	case "kustomization.yaml", "kustomization.yml", kustomization:
		return true
	}
	return false
}

// isList says whether kubectl would take the items for the objects.
func isList(h header) bool {
	return strings.HasSuffix(h.Kind, "List") && h.Items.Kind() == '['
}

func (d *Document) items(list *Object, h header, depth int) []*Object {
	if depth == maxNesting {
		list.Err = &Error{Message: fmt.Sprintf("Lists stand within Lists more than %d deep", maxNesting)}
		return []*Object{list}
	}
	var items []jsontext.Value
	if err := json.Unmarshal(h.Items, &items); err != nil {
		list.Err = list.DecodeError(err)
		return []*Object{list}
	}
	var defaults schema.GroupVersionKind
	if kind := strings.TrimSuffix(h.Kind, "List"); kind != "" {
		defaults = schema.FromAPIVersionAndKind(h.APIVersion, kind)
	}
	var all []*Object
	for i, item := range items {
		pointer := list.Pointer + jsontext.Pointer(fmt.Sprintf("/items/%d", i))
		all = append(all, d.objects(item, pointer, defaults, depth+1)...)
	}
	return all
}

// DecodeError says of an error from decoding the object's JSON which field it is about.
func (o *Object) DecodeError(err error) *Error {
	var semantic *json.SemanticError
	if !errors.As(err, &semantic) {
		return &Error{Message: err.Error()}
	}
	e := &Error{Field: FieldPath(semantic.JSONPointer)}
	e.Line = o.Line(e.Field)
	value := describe(semantic.JSONKind)
	if len(semantic.JSONValue) > 0 {
		value += " " + string(semantic.JSONValue)
	}
	switch {
	case semantic.Err != nil:
		e.Message = semantic.Err.Error()
	case semantic.GoType != nil:
		e.Message = fmt.Sprintf("%s does not fit: %s is expected", value, expected(semantic.GoType.Kind()))
	default:
		e.Message = value + " does not fit"
	}
	return e
}

// expected describes the JSON that a Go type takes.
func expected(k reflect.Kind) string {
	switch k {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Int32:
		return "a whole number of 32 bits"
	case reflect.Int64:
		return "a whole number of 64 bits"
	}
	return "a " + k.String()
}

func describe(k jsontext.Kind) string {
	switch k {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a value"
}
