// Package manifests renders and applies the installation for tests. Its own tests hold that every overlay renders,
// grants no more than it should, is accepted by a real API server, and sends the server exactly the requests that it
// has to judge.
package manifests

// The rights in docs/security.md.
//go:generate go test . -run ^TestSecurityPageListsRights$ -update
