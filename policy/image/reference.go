// Package image decides whether an image reference is on an allowlist.
//
// References are parsed with github.com/distribution/reference, as Docker and containerd read them, and compared by
// their parts, never as strings: a reference without a host is docker.io's, one without a path before its name is in
// docker.io/library, and one without tag or digest means the tag latest. What does not parse is not allowed.
package image

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
)

// Reference is a parsed image reference, normalised.
type Reference struct {
	// Domain is the registry's host, with its port if it has one.
	Domain string

	// Path is the repository's path below the registry, without leading slash.
	Path string

	// Tag is empty if the reference has none.
	Tag string

	// Digest is empty if the reference has none. If it has one, runtimes pull by it and pass over the tag.
	Digest string
}

// Parse reads an image reference as a container's image field holds it. IDs of images, whole or as digest, are an
// error: which image they select depends on what is on the node.
func Parse(s string) (Reference, error) {
	if isID(s) {
		return Reference{}, fmt.Errorf("image %s is an ID, not a reference to a repository", quote(s))
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("image %s is not a valid reference", quote(s))
	}
	ref := Reference{Domain: reference.Domain(named), Path: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		ref.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		ref.Digest = d.Digest().String()
	}
	return ref, nil
}

// Repository is the reference without tag and digest.
func (r Reference) Repository() string { return r.Domain + "/" + r.Path }

// String writes the reference in full.
func (r Reference) String() string {
	s := r.Repository()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// isID tells the IDs that runtimes look up among the images of the node. To the reference grammar they are a
// repository called sha256 and its tag.
func isID(s string) bool {
	algorithm, _, found := strings.Cut(s, ":")
	return found && (algorithm == "sha256" || algorithm == "sha384" || algorithm == "sha512")
}

// quote writes a string of unknown origin for a message. A valid reference is at most some 450 bytes long.
func quote(s string) string {
	const most = 512
	if len(s) > most {
		return fmt.Sprintf("%q (%d bytes)", s[:most], len(s))
	}
	return fmt.Sprintf("%q", s)
}
