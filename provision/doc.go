// Package provision makes the namespace of a role agent what its template says, and takes it out of service again.
//
// The template is a kustomization, since that is what people write for a role of their own, and since "kubectl apply -k" then does the
// same without this package. It is rendered by kustomize's own library: what it means is not for two programs to say. Only what a
// kustomization cannot know is put in afterwards, and typed: whose namespace it is, and where this cluster's API server is.
//
// Nothing here reads or writes the values of Secrets, and nothing here deletes.
package provision
