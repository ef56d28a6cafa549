package manifest

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	yaml3 "go.yaml.in/yaml/v3"
)

// FieldPath writes a JSON pointer as people write paths: spec.containers[0].image.
func FieldPath(p jsontext.Pointer) string {
	path := ""
	for token := range p.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			path += "[" + token + "]"
			continue
		}
		path = join(path, token)
	}
	return path
}

// join appends a key to a path, in brackets where a dot would mislead.
func join(path, key string) string {
	switch {
	case strings.ContainsAny(key, "./[]"):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// lineOf returns the line of the field at path, or of its closest parent that is there: rules speak of fields that are
// missing, and of what was injected.
func (d *Document) lineOf(path string) int {
	n := d.tree()
	line := d.Line
	for n != nil && path != "" {
		var at *yaml3.Node
		if n, at, path = step(n, path); n != nil {
			line = d.chunk.line - 1 + at.Line
		}
	}
	return line
}

// tree parses the document once more, for its lines, when somebody first asks.
func (d *Document) tree() *yaml3.Node {
	if d.root != nil || d.JSON == nil {
		return d.root
	}
	if d.isJSON {
		d.root = jsonTree(d.chunk.text)
		return d.root
	}
	var document yaml3.Node
	if err := yaml3.Unmarshal(d.chunk.text, &document); err != nil || len(document.Content) == 0 {
		document.Content = []*yaml3.Node{{}} // Without lines: the document's own has to do.
	}
	d.root = document.Content[0]
	return d.root
}

// jsonTree gives JSON the shape of YAML nodes. The YAML parser would not take all JSON: it knows no \/.
func jsonTree(text []byte) *yaml3.Node {
	decoder := jsontext.NewDecoder(bytes.NewReader(text))
	lines := lineCounter{text: text, line: 1}
	var read func() *yaml3.Node
	read = func() *yaml3.Node {
		token, err := decoder.ReadToken()
		if err != nil {
			return nil
		}
		n := &yaml3.Node{Kind: yaml3.ScalarNode, Line: lines.at(int(decoder.InputOffset()))}
		switch token.Kind() {
		case '{':
			n.Kind = yaml3.MappingNode
		case '[':
			n.Kind = yaml3.SequenceNode
		case '}', ']':
			return nil
		default:
			n.Value = token.String()
		}
		for n.Kind != yaml3.ScalarNode {
			child := read()
			if child == nil {
				break
			}
			n.Content = append(n.Content, child)
		}
		return n
	}
	return read()
}

// step goes from n to the child that path begins with. It returns the child, the node where the child is written (its
// key in a mapping) and the rest of the path; nil if there is no such child. Paths are ambiguous, since keys may hold
// dots: the longest key wins.
func step(n *yaml3.Node, path string) (child, at *yaml3.Node, rest string) {
	if n.Kind == yaml3.AliasNode {
		n = n.Alias
	}
	path = strings.TrimPrefix(path, ".")
	inner, after, bracketed := brackets(path)
	switch n.Kind {
	case yaml3.SequenceNode:
		if i, err := strconv.Atoi(inner); bracketed && err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i], after
		}
	case yaml3.MappingNode:
		longest := -1
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			switch {
			case bracketed && key == inner:
				return n.Content[i+1], n.Content[i], after
			case bracketed, len(key) <= longest, !strings.HasPrefix(path, key):
			case len(path) == len(key), path[len(key)] == '.', path[len(key)] == '[':
				longest, child, at, rest = len(key), n.Content[i+1], n.Content[i], path[len(key):]
			}
		}
		if child == nil {
			return stepIntoMerged(n, path)
		}
	}
	return child, at, rest
}

// stepIntoMerged looks where n merges other mappings (<<). That it ends was seen to when the document was converted:
// an anchor that contains itself is an error.
func stepIntoMerged(n *yaml3.Node, path string) (child, at *yaml3.Node, rest string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Tag != "!!merge" {
			continue
		}
		merged := n.Content[i+1]
		mappings := []*yaml3.Node{merged}
		if merged.Kind == yaml3.SequenceNode {
			mappings = merged.Content
		}
		for _, m := range mappings {
			if child, at, rest = step(m, path); child != nil {
				return child, at, rest
			}
		}
	}
	return nil, nil, ""
}

// brackets takes "[inner]" from the front of a path.
func brackets(path string) (inner, after string, ok bool) {
	if !strings.HasPrefix(path, "[") {
		return "", "", false
	}
	inner, after, ok = strings.Cut(path[1:], "]")
	return strings.Trim(inner, `"'`), after, ok
}
