// Package v1alpha1 defines the policy file: a LifecyclePolicy of lifecycle.dexorder.io/v1alpha1.
//
// The file says which namespaces hold agents (profiles), what an agent there must look like (rules), what its user's
// type gives it (tiers) and what is injected into it. Everything that changes a verdict is in the file; flags of the
// server are plumbing only.
//
// Decode reads a file strictly, fills in defaults and returns every error at once. The types carry no behaviour beyond
// that; package policy judges by them, package inject mutates by them.
package v1alpha1

// The JSON Schema for editors, and the reference for people, which is made of it and of the rules.
//go:generate go test . -run ^TestSchemaIsUpToDate$ -update
//go:generate go test .. -run ^TestReferenceIsUpToDate$ -update
