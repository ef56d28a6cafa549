// Package installation puts the manifests and the real server program onto a control plane that has no nodes, for
// tests and the demo: the base's namespaces, rights, policies and registrations as they are, and the servers as
// processes behind one address in the place of a Service. Each server acts as its own service account, so what the
// manifests do not allow fails here too.
package installation
