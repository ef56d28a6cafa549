// Demo walks through what the admission server does for an agent, on a real etcd and kube-apiserver and with the real
// server program: injection, refusals, a policy reload, a certificate rotation and a restart under traffic.
//
// There is no node and no controller manager, so where the walk needs a Pod it creates the ReplicaSet and the Pod
// itself, in the names of the controllers that would, and says so.
package main
