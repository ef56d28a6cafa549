package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	yaml3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// Document is one YAML document or JSON value.
type Document struct {
	// File that holds it, empty for standard input, and its place among the file's documents, from 1.
	File  string
	Index int

	// Line on which it begins, from 1.
	Line int

	// JSON is the document as JSON. Nil if it could not be parsed.
	JSON []byte

	// Objects are what the document holds: itself, or the items of a List.
	Objects []*Object

	chunk  chunk
	isJSON bool
	err    *Error
	root   *yaml3.Node
}

// Error says why something is not understood.
type Error struct {
	// Field is the path of what is wrong, empty if that is the document as a whole.
	Field string

	// Line is that of Field in the file. 0: not known beyond the document's.
	Line int

	Message string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// Verbatim returns the document as it was written, comments included, without document markers. Nil where it cannot do
// without them.
func (d *Document) Verbatim() []byte { return d.chunk.verbatim() }

// documents parses the chunk. What looks like JSON is read as JSON, which may hold several values; failing that, as
// YAML, whose flow style looks alike.
func (c chunk) documents() []*Document {
	var docs []*Document
	if c.looksLikeJSON() {
		docs = c.jsonDocuments()
	}
	if len(docs) > 0 && docs[len(docs)-1].err == nil {
		return docs
	}
	data, err := c.yamlToJSON()
	switch {
	case err == nil && string(data) == "null":
		return nil
	case err == nil || len(docs) == 0:
		return []*Document{{Line: c.first, JSON: data, chunk: c, err: err}}
	}
	return docs
}

func (c chunk) looksLikeJSON() bool {
	rest, ok := bytes.CutPrefix(bytes.TrimSpace(c.text[c.markerEnd:]), []byte("{"))
	rest = bytes.TrimSpace(rest)
	return ok && (bytes.HasPrefix(rest, []byte(`"`)) || bytes.HasPrefix(rest, []byte("}")))
}

// jsonDocuments reads values up to the chunk's end or the first error, which makes the last document.
func (c chunk) jsonDocuments() []*Document {
	var docs []*Document
	body := c.text[c.markerEnd:]
	lines := lineCounter{text: body, line: c.line + bytes.Count(c.text[:c.markerEnd], []byte("\n"))}
	decoder := jsontext.NewDecoder(bytes.NewReader(body))
	for {
		value, err := decoder.ReadValue()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return docs
		}
		if err != nil {
			rest := body[decoder.InputOffset():]
			line := lines.at(len(body) - len(bytes.TrimLeft(rest, " \t\r\n")))
			return append(docs, &Document{Line: line, chunk: c, isJSON: true, err: jsonError(err, lines)})
		}
		line := lines.at(int(decoder.InputOffset()) - len(value))
		text := bytes.Clone(value)
		docs = append(docs, &Document{
			Line: line, JSON: text, isJSON: true, chunk: chunk{text: text, line: line, first: line},
		})
	}
}

func jsonError(err error, lines lineCounter) *Error {
	var syntax *jsontext.SyntacticError
	if !errors.As(err, &syntax) {
		return &Error{Message: "invalid JSON: " + err.Error()}
	}
	line := lines.at(int(syntax.ByteOffset))
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return &Error{Line: line, Message: FieldPath(syntax.JSONPointer) + " is given twice"}
	}
	return &Error{Line: line, Message: fmt.Sprintf("invalid JSON: %v", syntax.Err)}
}

// lineCounter tells the lines of ascending offsets.
type lineCounter struct {
	text   []byte
	offset int
	line   int
}

func (l *lineCounter) at(offset int) int {
	offset = min(offset, len(l.text))
	l.line += bytes.Count(l.text[l.offset:max(offset, l.offset)], []byte("\n"))
	l.offset = max(offset, l.offset)
	return l.line
}

// yamlToJSON converts as kubectl does, but for keys that are given twice: kubectl takes the last one without a word.
func (c chunk) yamlToJSON() ([]byte, *Error) {
	if c.mayHoldMore() {
		if err := c.holdsOne(); err != nil {
			return nil, err
		}
	}
	data, err := yaml.YAMLToJSONStrict(c.text)
	if err == nil {
		return data, nil
	}
	// The strict conversion takes a key that overrides a merged one (<<) for a duplicate, too.
	var root yaml3.Node
	if yaml3.Unmarshal(c.text, &root) == nil {
		if found := duplicates(&root, "", c.line-1, nil); len(found) > 0 {
			return nil, &Error{Line: found[0].Line, Message: joinMessages(found)}
		}
	}
	if data, err = yaml.YAMLToJSON(c.text); err != nil {
		return nil, yamlError(err, c.line-1)
	}
	return data, nil
}

// mayHoldMore says whether the YAML parser, which stops at a document's end, might stop before the text's: where the
// document is not a plain block mapping, or lines end in ways that split does not know.
func (c chunk) mayHoldMore() bool {
	content := c.text
	for line := c.line; line < c.first; line++ {
		content = content[bytes.IndexByte(content, '\n')+1:]
	}
	first, _ := utf8.DecodeRune(content)
	return !unicode.IsLetter(first) || oddLineEnd.Match(c.text)
}

// oddLineEnd matches what YAML 1.1 takes for a line's end beside \n and \r\n.
var oddLineEnd = regexp.MustCompile(`\r[^\n]|[\x{85}\x{2028}\x{2029}]`)

func (c chunk) holdsOne() *Error {
	decoder := yaml3.NewDecoder(bytes.NewReader(c.text))
	var node yaml3.Node
	if decoder.Decode(&node) != nil {
		return nil // Converting it will say why.
	}
	if err := decoder.Decode(&node); errors.Is(err, io.EOF) {
		return nil
	}
	return &Error{Message: "something follows the document that would be passed over; begin it with a line that says ---"}
}

func joinMessages(errs []Error) string {
	messages := make([]string, len(errs))
	for i, e := range errs {
		messages[i] = e.Message
	}
	return strings.Join(messages, "; ")
}

// duplicates appends an error for every key that its mapping holds more than once.
func duplicates(n *yaml3.Node, path string, before int, found []Error) []Error {
	switch n.Kind {
	case yaml3.MappingNode:
		first := make(map[string]int, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, field := n.Content[i], join(path, n.Content[i].Value)
			if line, ok := first[key.Value]; ok {
				found = append(found, Error{Line: before + key.Line, Message: fmt.Sprintf(
					"%s is given twice, on lines %d and %d", field, before+line, before+key.Line)})
			} else if key.Kind == yaml3.ScalarNode {
				first[key.Value] = key.Line
			}
			found = duplicates(n.Content[i+1], field, before, found)
		}
	case yaml3.SequenceNode:
		for i, element := range n.Content {
			found = duplicates(element, fmt.Sprintf("%s[%d]", path, i), before, found)
		}
	case yaml3.DocumentNode:
		for _, child := range n.Content {
			found = duplicates(child, path, before, found)
		}
	}
	return found
}

// yamlLine is how the YAML library names a line, counted from the text it was given.
var yamlLine = regexp.MustCompile(`^yaml: line (\d+): `)

func yamlError(err error, before int) *Error {
	message := err.Error()
	m := yamlLine.FindStringSubmatch(message)
	if m == nil {
		return &Error{Message: "invalid YAML: " + strings.TrimPrefix(message, "yaml: ")}
	}
	line, _ := strconv.Atoi(m[1])
	return &Error{Line: before + line, Message: "invalid YAML: " + message[len(m[0]):]}
}
