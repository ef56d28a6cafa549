package reaper

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// referrer is a kind of object that can refer to a ConfigMap or a Secret, besides Pods, workloads and service
// accounts, which are read as what they are.
type referrer struct {
	group, version, resource string

	// metadataOnly says that it refers by annotations alone.
	metadataOnly bool

	// within says which of its fields count; nil if all do.
	within func(key string) bool

	// custom says that nothing is known of it.
	custom bool
}

// bySecretOrConfigMap is for kinds that name other things as well: what is a reference says so.
func bySecretOrConfigMap(key string) bool {
	key = strings.ToLower(key)
	return strings.Contains(key, "secret") || strings.Contains(key, "configmap")
}

// byResourceName is for roles: who may read an object that is named knows it.
func byResourceName(key string) bool { return key == "resourceNames" }

// clusterReferrers lists Kubernetes' own kinds without a namespace that can refer to a ConfigMap or a Secret.
var clusterReferrers = []referrer{
	{version: "v1", resource: "persistentvolumes", within: bySecretOrConfigMap},
	{group: "storage.k8s.io", version: "v1", resource: "storageclasses"},
	{group: "networking.k8s.io", version: "v1", resource: "ingressclasses"},
	// The CA of these four may come from a Secret: by cert-manager.io/inject-ca-from-secret, and by others' annotations.
	{group: "admissionregistration.k8s.io", version: "v1", resource: "mutatingwebhookconfigurations", metadataOnly: true},
	{group: "admissionregistration.k8s.io", version: "v1", resource: "validatingwebhookconfigurations", metadataOnly: true},
	{group: "apiregistration.k8s.io", version: "v1", resource: "apiservices", metadataOnly: true},
	{group: "apiextensions.k8s.io", version: "v1", resource: "customresourcedefinitions", metadataOnly: true},
	{group: "admissionregistration.k8s.io", version: "v1", resource: "validatingadmissionpolicybindings"},
	{group: "admissionregistration.k8s.io", version: "v1", resource: "mutatingadmissionpolicybindings"},
	{group: "admissionregistration.k8s.io", version: "v1beta1", resource: "mutatingadmissionpolicybindings"}, // of before Kubernetes 1.36
}

// namespacedReferrers lists those that have a namespace. Their version is the API server's.
var namespacedReferrers = []referrer{
	{resource: "podtemplates", within: bySecretOrConfigMap},
	{resource: "services", metadataOnly: true},
	{resource: "persistentvolumeclaims", metadataOnly: true},
	{group: "networking.k8s.io", resource: "ingresses"},
	{group: "rbac.authorization.k8s.io", resource: "roles", within: byResourceName},
	{group: "resource.k8s.io", resource: "resourceclaims"},
	{group: "resource.k8s.io", resource: "resourceclaimtemplates"},
}

// reportingGroups have objects that say something of others and use none of them, or measurements.
var reportingGroups = []string{
	"metrics.k8s.io", "custom.metrics.k8s.io", "external.metrics.k8s.io", // of metrics servers
	"wgpolicyk8s.io", "openreports.io", "reports.kyverno.io", // of policy engines, one report for each object
	"aquasecurity.github.io",        // of scanners
	"packages.operators.coreos.com", // a catalogue
}

func isReporting(group string) bool { return slices.Contains(reportingGroups, group) }

// referenceGrants allow objects of other namespaces to refer to those of their own.
var referenceGrants = schema.GroupResource{Group: "gateway.networking.k8s.io", Resource: "referencegrants"}

// referrersOf returns the kinds that have to be looked through in a namespace, of those that the API server has:
// Kubernetes' own that are known to refer to something, and all others. Kinds of groups that client-go knows are
// Kubernetes' own.
func referrersOf(served []*metav1.APIResourceList) ([]referrer, error) {
	var all []referrer
	for _, list := range served {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			return nil, err
		}
		for i := range list.APIResources {
			r := &list.APIResources[i]
			if strings.Contains(r.Name, "/") || !r.Namespaced || !slices.Contains(r.Verbs, "list") {
				continue
			}
			at := slices.IndexFunc(namespacedReferrers, func(k referrer) bool { return k.group == gv.Group && k.resource == r.Name })
			switch {
			case at >= 0:
				known := namespacedReferrers[at]
				known.version = gv.Version
				all = append(all, known)
			case !scheme.Scheme.IsGroupRegistered(gv.Group) && !isReporting(gv.Group):
				all = append(all, referrer{group: gv.Group, version: gv.Version, resource: r.Name, custom: true})
			}
		}
	}
	return all, nil
}

func (k *referrer) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: k.group, Resource: k.resource}
}

// path is where the API server lists them: in a namespace, or all if that is empty.
func (k *referrer) path(namespace string) []string {
	path := []string{"apis", k.group, k.version}
	if k.group == "" {
		path = []string{"api", k.version}
	}
	if namespace != "" {
		path = append(path, "namespaces", namespace)
	}
	return append(path, k.resource)
}
