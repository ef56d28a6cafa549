package v1alpha1

import (
	"bytes"
	"fmt"
)

// Bounds on the text of a file, checked before any of it is parsed: the YAML parser takes some 250 bytes of memory for each
// value, time that grows with the square of the depth, and anybody may send a file to be judged. No file that
// the bounds on values let pass comes near them; in comments and strings the characters count too.
const (
	maxSeparators = 3 * maxNodes
	maxBrackets   = 8 * maxDepth
	maxDashes     = 2 * maxDepth
	maxDocuments  = 100
)

// checkText refuses a file that would cost too much to parse.
func checkText(data []byte) error {
	separators := bytes.Count(data, []byte(",")) + bytes.Count(data, []byte(":")) + bytes.Count(data, []byte("- "))
	if separators > maxSeparators {
		return fmt.Errorf("the policy file has more than %d commas, colons and dashes, and so more than %d values", maxSeparators, maxNodes)
	}
	if bytes.Count(data, []byte("\n---")) > maxDocuments {
		return fmt.Errorf("the policy file holds more than %d documents; one is read", maxDocuments)
	}
	brackets, dashes, line := 0, 0, 1
	for _, c := range data {
		switch c {
		case '[', '{':
			brackets++
		case ']', '}':
			brackets = max(0, brackets-1)
		case '-', '?':
			dashes++
		case ' ', '\t', '\r':
		case '\n':
			line++
			dashes = 0
		default:
			dashes = 0
		}
		if brackets > maxBrackets || dashes > maxDashes && dashNests(data) {
			return fmt.Errorf("line %d: nested more than %d deep", line, maxDepth)
		}
	}
	return nil
}

// dashNests says whether lists or keys nest within a line by dashes, each followed by a space. A rule of dashes does not.
func dashNests(data []byte) bool {
	for _, nesting := range []string{"- - - - - - - - ", "? ? ? ? ? ? ? ? "} {
		if bytes.Contains(data, []byte(nesting)) {
			return true
		}
	}
	return false
}
