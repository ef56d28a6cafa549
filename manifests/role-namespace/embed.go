// Package rolenamespace holds the template of role agents' namespaces: a kustomization that people can use by itself, and that the
// command kubectl agents provision carries along.
package rolenamespace

import "embed"

// Files are the directories base, components and isolation.
//
//go:embed base components isolation
var Files embed.FS
