package fleet

import psaapi "k8s.io/pod-security-admission/api"

// InstalledPodSecurity returns the labels of Pod Security that the manifests give to namespaces of agents, by namespace.
func InstalledPodSecurity() map[string]map[string]string {
	return map[string]map[string]string{"dexorder-agents": {
		psaapi.EnforceLevelLabel: "restricted", psaapi.EnforceVersionLabel: "v1.36",
	}}
}
