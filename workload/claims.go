package workload

import corev1 "k8s.io/api/core/v1"

// Claims names the PersistentVolumeClaims that a Pod mounts, in the order of its volumes.
func Claims(spec *corev1.PodSpec) []string {
	var names []string
	for i := range spec.Volumes {
		if claim := spec.Volumes[i].PersistentVolumeClaim; claim != nil {
			names = append(names, claim.ClaimName)
		}
	}
	return names
}
