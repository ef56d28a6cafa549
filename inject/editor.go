package inject

import (
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
)

// editor collects the operations that mirror changes of a typed object, and warnings about them.
type editor struct {
	patch    []jsonpatch.Operation
	warnings []string
}

// set gives the member at path a value, whether or not it has one. Its parent must exist.
func (e *editor) set(path string, value any) {
	e.patch = append(e.patch, jsonpatch.Operation{Operation: "add", Path: path, Value: value})
}

// replace gives an element of a list another value.
func (e *editor) replace(path string, value any) {
	e.patch = append(e.patch, jsonpatch.Operation{Operation: "replace", Path: path, Value: value})
}

// remove takes a member that is there out of its parent.
func (e *editor) remove(path string) {
	e.patch = append(e.patch, jsonpatch.Operation{Operation: "remove", Path: path})
}

func (e *editor) warn(format string, args ...any) {
	e.warnings = append(e.warnings, fmt.Sprintf(format, args...))
}

// setKey gives a key of a string map a value, in the map and in the patch. A nil map is absent or null in the JSON,
// and no key can be added to that: then the whole map is set.
func (e *editor) setKey(m *map[string]string, path, key, value string) {
	if *m == nil {
		*m = map[string]string{key: value}
		e.set(path, map[string]string{key: value})
		return
	}
	(*m)[key] = value
	e.set(path+"/"+escape(key), value)
}

// removeKey takes a key that is there out of a string map, in the map and in the patch.
func (e *editor) removeKey(m map[string]string, path, key string) {
	delete(m, key)
	e.patch = append(e.patch, jsonpatch.Operation{Operation: "remove", Path: path + "/" + escape(key)})
}

// appendTo appends elements to a list, in the list and in the patch. A nil list is absent or null in the JSON, and
// nothing can be appended to that: then the whole list is set.
func appendTo[T any](e *editor, list *[]T, path string, elements ...T) {
	if *list == nil && len(elements) > 0 {
		*list = slices.Clone(elements)
		e.set(path, elements)
		return
	}
	for _, element := range elements {
		*list = append(*list, element)
		e.set(path+"/-", element)
	}
}

// replaceIn replaces the i-th element of a list, in the list and in the patch.
func replaceIn[T any](e *editor, list []T, i int, path string, element T) {
	list[i] = element
	e.replace(fmt.Sprintf("%s/%d", path, i), element)
}

// removeFrom takes the i-th element out of a list, in the list and in the patch.
func removeFrom[T any](e *editor, list *[]T, i int, path string) {
	*list = slices.Delete(*list, i, i+1)
	e.patch = append(e.patch, jsonpatch.Operation{Operation: "remove", Path: fmt.Sprintf("%s/%d", path, i)})
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// escape makes a key a reference token of a JSON pointer (RFC 6901).
func escape(key string) string { return pointerEscapes.Replace(key) }
