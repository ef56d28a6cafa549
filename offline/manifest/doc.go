// Package manifest reads the files that people keep Kubernetes objects in, the way kubectl reads them: YAML with many
// documents, JSON values one after another, Lists. It remembers where everything stood, so that what is said of a field
// can be said of a line.
//
// Nothing is passed over silently: what cannot be understood comes as an Object that says why.
package manifest
