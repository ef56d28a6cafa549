// Package controlplane runs a real Kubernetes control plane for integration tests and the demo: etcd,
// kube-apiserver and, where asked for, kube-controller-manager, each a process of its own on loopback.
//
// It is [envtest] with what a real cluster has and envtest leaves out: the ServiceAccount admission plugin is on,
// token requests work, and the controller manager acts under one service account per controller, as the webhook's
// rules about who created a Pod expect. There are no nodes, so Pods stay Pending.
//
// No process outlives the program that started it, however that program ends: a guard process waits for the other
// end of a pipe to close.
//
// [envtest]: https://pkg.go.dev/sigs.k8s.io/controller-runtime/pkg/envtest
package controlplane
