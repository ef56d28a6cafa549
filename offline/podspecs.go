package offline

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// podSpec is what looks like a Pod's spec somewhere in an object.
type podSpec struct {
	// Pointer leads from the object's root to the spec.
	Pointer jsontext.Pointer

	// Template is the object around it as JSON, where the spec stands under the key spec, else nil.
	Template map[string]json.RawMessage

	Spec map[string]json.RawMessage
}

// maxPodSpecs is how many of an object are looked at. No known kind has more than a few.
const maxPodSpecs = 16

// podSpecs finds what looks like a Pod's spec in an object of any kind: whatever has a list of containers of which
// one has an image. They are sorted by their pointers.
func podSpecs(object []byte) []podSpec {
	var found []podSpec
	findPodSpecs(object, "", nil, &found)
	return found
}

func findPodSpecs(value json.RawMessage, at jsontext.Pointer, around map[string]json.RawMessage, found *[]podSpec) {
	switch jsontext.Value(value).Kind() {
	case '[':
		var elements []json.RawMessage
		if json.Unmarshal(value, &elements) != nil {
			return
		}
		for i, element := range elements {
			findPodSpecs(element, at.AppendToken(strconv.Itoa(i)), nil, found)
		}
	case '{':
		var members map[string]json.RawMessage
		if len(*found) == maxPodSpecs || json.Unmarshal(value, &members) != nil {
			return
		}
		if hasContainers(members["containers"]) {
			spec := podSpec{Pointer: at, Spec: members}
			if strings.HasSuffix(string(at), "/spec") {
				spec.Template = around
			}
			*found = append(*found, spec)
			return
		}
		keys := make([]string, 0, len(members))
		for key := range members {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			findPodSpecs(members[key], at.AppendToken(key), members, found)
		}
	}
}

// hasContainers says whether a value is a list of objects of which one names an image.
func hasContainers(value json.RawMessage) bool {
	var elements []map[string]json.RawMessage
	if jsontext.Value(value).Kind() != '[' || json.Unmarshal(value, &elements) != nil {
		return false
	}
	return slices.ContainsFunc(elements, func(e map[string]json.RawMessage) bool {
		return jsontext.Value(e["image"]).Kind() == '"'
	})
}
