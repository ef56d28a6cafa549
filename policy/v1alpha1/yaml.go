package v1alpha1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds on a document once its aliases are followed, so that a small file cannot grow without end.
const (
	maxDepth = 32
	maxNodes = 50_000

	// maxMistakes is how many of its mistakes are collected, far more than are told.
	maxMistakes = 1000
)

// parse reads the only document of a YAML file as maps, slices and scalars. JSON is YAML.
//
// It reads YAML's nodes itself, for their paths and lines, and because YAML 1.1 would read the value on as true.
// Fields given twice or without a value are returned as field errors and left out of the tree.
func parse(data []byte) (map[string]any, field.ErrorList, error) {
	document, err := onlyDocument(data)
	if err != nil {
		return nil, nil, err
	}
	if document.Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("the policy file is not a %s: it has no fields at its top", Kind)
	}
	var p parser
	value, err := p.value(nil, document, 0)
	if err != nil {
		return nil, nil, err
	}
	tree, _ := value.(map[string]any)
	return tree, p.errs, nil
}

// onlyDocument returns the root of the one document that is not empty.
func onlyDocument(data []byte) (*yaml.Node, error) {
	var only *yaml.Node
	for decoder := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var document yaml.Node
		switch err := decoder.Decode(&document); {
		case errors.Is(err, io.EOF) && only == nil:
			return nil, fmt.Errorf("the policy file is empty; want a %s of %s", Kind, APIVersion)
		case errors.Is(err, io.EOF):
			return only, nil
		case err != nil:
			return nil, fmt.Errorf("the policy file is neither YAML nor JSON: %s",
				strings.TrimPrefix(err.Error(), "yaml: "))
		}
		root := document.Content[0]
		if root.Tag == "!!null" {
			continue
		}
		if only != nil {
			return nil, fmt.Errorf("the policy file holds more than one document: one begins in line %d, another in line %d",
				only.Line, root.Line)
		}
		only = root
	}
}

// parser turns nodes into values and collects what is wrong with fields on the way.
type parser struct {
	errs  field.ErrorList
	nodes int
}

// value returns nil for what was refused. Its own errors end the parsing.
func (p *parser) value(path *field.Path, n *yaml.Node, depth int) (any, error) {
	p.nodes++
	switch {
	case depth > maxDepth:
		return nil, fmt.Errorf("line %d: nested more than %d deep", n.Line, maxDepth)
	case len(p.errs) > maxMistakes:
		return nil, decodeError{append(p.errs, field.TooMany(path, len(p.errs), maxMistakes))}
	case p.nodes > maxNodes:
		return nil, fmt.Errorf("line %d: more than %d values, aliases counted as often as they are used", n.Line, maxNodes)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return p.value(path, n.Alias, depth+1)
	case yaml.MappingNode:
		return p.mapping(path, n, depth)
	case yaml.SequenceNode:
		values := make([]any, 0, len(n.Content))
		for i, element := range n.Content {
			v, err := p.value(path.Index(i), element, depth+1)
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	default:
		return p.scalar(path, n), nil
	}
}

func (p *parser) mapping(path *field.Path, n *yaml.Node, depth int) (any, error) {
	fields := make(map[string]any, len(n.Content)/2)
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, node := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			return nil, fmt.Errorf("line %d: a field's name must be a string", key.Line)
		}
		at := child(path, key.Value)
		if first, twice := lines[key.Value]; twice {
			p.errs = append(p.errs, field.Forbidden(at, fmt.Sprintf("given twice, in lines %d and %d", first, key.Line)))
			continue
		}
		lines[key.Value] = key.Line
		v, err := p.value(at, node, depth+1)
		if err != nil {
			return nil, err
		}
		if v != nil {
			fields[key.Value] = v
		}
	}
	return fields, nil
}

func (p *parser) scalar(path *field.Path, n *yaml.Node) any {
	switch n.ShortTag() {
	case "!!null":
		p.errs = append(p.errs, field.Required(path, "give it a value or leave it out"))
		return nil
	case "!!str", "!!timestamp":
		return n.Value
	case "!!bool", "!!int", "!!float":
		var v any
		if err := n.Decode(&v); err == nil && !infinite(v) {
			return v
		}
	}
	p.errs = append(p.errs, field.TypeInvalid(path, n.Value, "must be a string, a finite number, true or false"))
	return nil
}

// infinite tells the numbers that YAML has and JSON has not.
func infinite(v any) bool {
	f, ok := v.(float64)
	return ok && (math.IsInf(f, 0) || math.IsNaN(f))
}
