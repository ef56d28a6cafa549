// Package integration holds tests of the whole server on a real control plane: etcd, kube-apiserver and
// kube-controller-manager, the manifests' own registrations and rights, and the server program as a process. They show
// that every rule answers there, on every path by which an object can be stored, and what becomes of agents while the
// server is away.
package integration
