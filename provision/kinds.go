package provision

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kind is one of what a role's namespace may hold.
type kind struct {
	schema.GroupVersionKind
	resource string
}

// kinds lists them in the order in which they are applied: what confines an agent is there before the agent. They are the ones that the
// reaper compares with a template, and no Secret is among them: those are somebody else's to make.
func kinds() []kind {
	k := func(group, version, name, resource string) kind {
		return kind{schema.GroupVersionKind{Group: group, Version: version, Kind: name}, resource}
	}
	return []kind{
		k("", "v1", kindNamespace, "namespaces"),
		k("", "v1", "ResourceQuota", "resourcequotas"),
		k("", "v1", "LimitRange", "limitranges"),
		k("networking.k8s.io", "v1", kindNetworkPolicy, "networkpolicies"),
		k("", "v1", "ServiceAccount", "serviceaccounts"),
		k("rbac.authorization.k8s.io", "v1", "Role", "roles"),
		k("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
		k("", "v1", "ConfigMap", "configmaps"),
		k("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
		k("", "v1", "Service", "services"),
		k("apps", "v1", kindDeployment, "deployments"),
		k("apps", "v1", kindStatefulSet, "statefulsets"),
		k("batch", "v1", kindCronJob, "cronjobs"),
	}
}

const (
	kindNamespace     = "Namespace"
	kindNetworkPolicy = "NetworkPolicy"
	kindDeployment    = "Deployment"
	kindStatefulSet   = "StatefulSet"
	kindCronJob       = "CronJob"
)

// rank is the place of an object's kind in kinds, or -1.
func rank(o *unstructured.Unstructured) int {
	return slices.IndexFunc(kinds(), func(k kind) bool { return k.GroupVersionKind == o.GroupVersionKind() })
}

func resourceOf(o *unstructured.Unstructured) schema.GroupVersionResource {
	k := kinds()[rank(o)]
	return k.GroupVersion().WithResource(k.resource)
}

func kindNames() string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.Kind)
	}
	return strings.Join(names, ", ")
}

// nameOf is how an object is named in what is said of it.
func nameOf(o *unstructured.Unstructured) string { return o.GetKind() + " " + o.GetName() }
