package archive

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Kind is a kind of object that is kept.
type Kind struct {
	schema.GroupVersionKind

	// Resource is its name in the API's paths.
	Resource string
}

// GVR is what a dynamic client asks for.
func (k Kind) GVR() schema.GroupVersionResource { return k.GroupVersion().WithResource(k.Resource) }

func kind(group, version, name, resource string) Kind {
	return Kind{schema.GroupVersionKind{Group: group, Version: version, Kind: name}, resource}
}

// namespaceKind is kept as well, but is in no namespace.
var namespaceKind = kind("", "v1", "Namespace", "namespaces")

const (
	kindSecret = "Secret"
	kindClaim  = "PersistentVolumeClaim"
)

// Kinds are the kinds of namespaced objects that are kept, in the order in which they are restored: what others refer to comes
// first. Quotas come last, since nothing is admitted under one until its controller has counted.
var Kinds = []Kind{
	kind("", "v1", "LimitRange", "limitranges"),
	kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
	kind("", "v1", "ServiceAccount", "serviceaccounts"),
	kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
	kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
	kind("", "v1", "ConfigMap", "configmaps"),
	kind("", "v1", kindSecret, "secrets"),
	kind("", "v1", kindClaim, "persistentvolumeclaims"),
	kind("", "v1", "Service", "services"),
	kind("apps", "v1", "Deployment", "deployments"),
	kind("apps", "v1", "StatefulSet", "statefulsets"),
	kind("apps", "v1", "DaemonSet", "daemonsets"),
	kind("batch", "v1", "CronJob", "cronjobs"),
	kind("batch", "v1", "Job", "jobs"),
	kind("", "v1", "ResourceQuota", "resourcequotas"),
}

func kindNamed(name string) (Kind, bool) {
	for _, k := range Kinds {
		if k.Kind == name {
			return k, true
		}
	}
	return Kind{}, false
}

// madeByControllers are objects that every namespace gets by itself.
var madeByControllers = map[string]string{
	"ConfigMap":      "kube-root-ca.crt",
	"ServiceAccount": "default",
}

// tokenSecrets are minted for one ServiceAccount's UID, and worth nothing for another.
const tokenSecrets = string(corev1.SecretTypeServiceAccountToken)
