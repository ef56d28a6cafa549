package reaper

import (
	"slices"
	"strings"
)

// releaseTool is a tool that keeps what it has deployed, or whose it is, in ConfigMaps and Secrets.
type releaseTool struct {
	name string

	// labels are those that it gives its records.
	labels map[string]string

	// namePrefix begins the names of its records.
	namePrefix string

	// domains begin the keys of labels and annotations that it gives its records, and what belongs to a release.
	domains []string
}

// releaseTools lists the tools that are known. Docs/agents.md names them.
var releaseTools = []releaseTool{
	{name: "Helm", labels: map[string]string{"owner": "helm"}, namePrefix: "sh.helm.release.v1.", domains: []string{"meta.helm.sh/", "helm.sh/"}},
	{name: "Helm 2", labels: map[string]string{"OWNER": "TILLER"}},
	{name: "Terraform", labels: map[string]string{"tfstate": "true"}, namePrefix: "tfstate-"},
	{name: "Argo CD", domains: []string{"argocd.argoproj.io/"}},
	{name: "Flux", domains: []string{"kustomize.toolkit.fluxcd.io/", "helm.toolkit.fluxcd.io/"}},
	{name: "kapp", domains: []string{"kapp.k14s.io/"}},
	{name: "kpt", domains: []string{"cli-utils.sigs.k8s.io/", "config.k8s.io/", "config.kubernetes.io/"}},
	{name: "kubectl apply --applyset", domains: []string{"applyset.kubernetes.io/"}},
	{name: "Config Sync", domains: []string{"configsync.gke.io/", "configmanagement.gke.io/"}},
	{name: "Pulumi", domains: []string{"pulumi.com/"}},
	{name: "Timoni", namePrefix: "timoni.", domains: []string{"timoni.sh/", "action.timoni.sh/"}},
	{name: "Kluctl", domains: []string{"kluctl.io/"}},
	{name: "Tanka", domains: []string{"tanka.dev/"}},
	{name: "werf", domains: []string{"werf.io/", "project.werf.io/"}},
	{name: "Fleet", domains: []string{"fleet.cattle.io/", "objectset.rio.cattle.io/"}},
	{name: "Skaffold", domains: []string{"skaffold.dev/"}},
}

// managedBy is the label in which tools write their name on what they deploy; an agent that writes its own there is
// none of them.
const managedBy = "app.kubernetes.io/managed-by"

// releaseOf names the tool whose record of a release an object is, or to whose release it belongs; "" if there is
// none. Such a record describes what lives elsewhere: it is written when something is deployed, read by nobody until
// the next time, and lost with it is the way to upgrade or remove what was deployed.
func releaseOf(name string, labels, annotations map[string]string) string {
	for i := range releaseTools {
		t := &releaseTools[i]
		if t.namePrefix != "" && strings.HasPrefix(name, t.namePrefix) || strings.EqualFold(labels[managedBy], t.name) {
			return t.name
		}
		for key, value := range t.labels {
			if labels[key] == value {
				return t.name
			}
		}
		for _, keys := range []map[string]string{labels, annotations} {
			for key := range keys {
				if slices.ContainsFunc(t.domains, func(domain string) bool { return strings.HasPrefix(key, domain) }) {
					return t.name
				}
			}
		}
	}
	return ""
}
