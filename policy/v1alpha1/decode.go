package v1alpha1

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// MaxSize bounds a policy file, in bytes. It is what fits into a ConfigMap.
const MaxSize = 1 << 20

// Decode reads a policy file in YAML or JSON, fills in what it leaves out and validates the whole.
//
// It is strict: a field that is unknown, given twice or without a value is an error. The error holds everything that
// is wrong, one line each with the field's path; errors.As finds each as a *field.Error.
func Decode(data []byte) (*LifecyclePolicy, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("the policy file has %d bytes; at most %d are read", len(data), MaxSize)
	}
	if err := checkText(data); err != nil {
		return nil, err
	}
	tree, unread, err := parse(data)
	if err != nil {
		return nil, err
	}
	// The fields of another kind of object would all be unknown: that would hide what is wrong.
	if foreign := validateType(tree); len(foreign) > 0 {
		return nil, decodeError{foreign}
	}
	file, misfits := unmarshal(tree)
	unread = append(unread, misfits...)
	setDefaults(file)

	errs := slices.Clone(unread)
	for _, e := range validate(file) {
		if !concerns(unread, e.Field) {
			errs = append(errs, e)
		}
	}
	if len(errs) > 0 {
		slices.SortStableFunc(errs, func(a, b *field.Error) int { return strings.Compare(a.Field, b.Field) })
		return nil, decodeError{errs}
	}
	return file, nil
}

// Hash is a short hash of a policy file, by which logs, metrics and answers name the version that is in force.
func Hash(data []byte) string {
	sum := sha256.Sum256(bytes.TrimSpace(data))
	return hex.EncodeToString(sum[:6])
}
