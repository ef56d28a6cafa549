package v1alpha1

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Bounds on what an error says, so that a file full of mistakes fills no log.
const (
	maxErrors = 50
	maxLine   = 1024
)

// decodeError is everything that is wrong with a file.
type decodeError struct {
	list field.ErrorList
}

// Error writes one line for each error, up to a bound.
func (e decodeError) Error() string {
	lines := make([]string, 0, min(len(e.list), maxErrors)+1)
	for i, err := range e.list {
		if i == maxErrors {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.list)-maxErrors))
			break
		}
		lines = append(lines, bounded(err.Error()))
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find each error.
func (e decodeError) Unwrap() []error {
	errs := make([]error, 0, len(e.list))
	for _, err := range e.list {
		errs = append(errs, err)
	}
	return errs
}

func bounded(line string) string {
	if len(line) <= maxLine {
		return line
	}
	cut := maxLine
	for !utf8.RuneStart(line[cut]) {
		cut--
	}
	return line[:cut] + "…"
}

// concerns says whether a field could not be read, or something that holds it: what else is wrong with it follows from
// that.
func concerns(unread field.ErrorList, path string) bool {
	for _, e := range unread {
		rest, found := strings.CutPrefix(path, e.Field)
		if found && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}
