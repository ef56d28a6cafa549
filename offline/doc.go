// Package offline judges and injects manifests without a cluster, by the very code that does it in one: package inject
// first, package policy on what comes out.
//
// What only a cluster can tell is not judged, and warnings say so. Three things of a cluster are taken for granted: that
// the user is an ordinary one, that the object does not exist yet, and that the API server keeps container restart
// rules.
package offline
