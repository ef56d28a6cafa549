package v1alpha1

import (
	_ "embed"
	"slices"
)

//go:embed example.yaml
var example []byte

// Example returns the published policy file, with comments. It is what the manifests install.
func Example() []byte { return slices.Clone(example) }
