package gateway

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// makeHeadless takes the cluster IP from the Service that will be created, and returns why it cannot; empty if it
// could.
//
// The kubelet tells each container of a Pod with service links the names and addresses of all Services of its namespace
// that have a cluster IP: every agent would read who the other users are, and from some 3,300 Services on no container
// would start, since the environment is too large to execute a program. The gateway itself connects to Pods
// and needs no Service.
//
// Without a cluster IP nothing translates ports: the name resolves to the Pod, and who dials it reaches the port that
// it names. So a Service whose ports differ from those of the Pod keeps its cluster IP, or its clients would find
// nothing there.
func (o *objects) makeHeadless() string {
	spec := &o.service.Spec
	switch {
	case spec.ClusterIP == corev1.ClusterIPNone:
		return ""
	case spec.Type != "" && spec.Type != corev1.ServiceTypeClusterIP:
		return fmt.Sprintf("spec.type is %s; left out it would be headless", spec.Type)
	case spec.ClusterIP != "" || len(spec.ClusterIPs) > 0:
		return "spec.clusterIP is an address; left out the Service would be headless"
	}
	for i := range spec.Ports {
		if port := &spec.Ports[i]; o.targetPort(port) != port.Port {
			return fmt.Sprintf("spec.ports[%d]: port %d has targetPort %s; for a headless Service they must be the same, "+
				"since it translates no ports", i, port.Port, port.TargetPort.String())
		}
	}
	spec.ClusterIP = corev1.ClusterIPNone
	return ""
}

// targetPort is the port of the Pod that the Service's port leads to; 0 if no container has a port of that name.
func (o *objects) targetPort(port *corev1.ServicePort) int32 {
	switch {
	case port.TargetPort.StrVal == "" && port.TargetPort.IntVal == 0:
		return port.Port
	case port.TargetPort.StrVal == "":
		return port.TargetPort.IntVal
	}
	pod := &o.deployment.Spec.Template.Spec
	for _, c := range slices.Concat(pod.Containers, pod.InitContainers) {
		for _, p := range c.Ports {
			if p.Name == port.TargetPort.StrVal {
				return p.ContainerPort
			}
		}
	}
	return 0
}
