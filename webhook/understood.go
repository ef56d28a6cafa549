package webhook

import (
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// entry is one sort of request that a path answers: operations on a resource, and the kind that its objects have.
type entry struct {
	group, version, resource, subresource string
	kind                                  schema.GroupVersionKind
	operations                            []admissionv1.Operation
}

var (
	create       = []admissionv1.Operation{admissionv1.Create}
	createUpdate = []admissionv1.Operation{admissionv1.Create, admissionv1.Update}
	update       = []admissionv1.Operation{admissionv1.Update}
	all          = []admissionv1.Operation{admissionv1.Create, admissionv1.Update, admissionv1.Delete}

	scale = schema.GroupVersionKind{Group: "autoscaling", Version: "v1", Kind: "Scale"}
)

// mutates, stamps, validates and policyWrites list all that is understood on each path. A webhook configuration has to
// register every one of them (see compare), and a request that is not among them is a fault.
var (
	mutates = []entry{
		{"apps", "v1", "deployments", "", kind("apps", "Deployment"), createUpdate},
	}
	stamps = []entry{
		{"", "v1", "configmaps", "", kind("", "ConfigMap"), create},
		{"", "v1", "secrets", "", kind("", "Secret"), create},
		{"batch", "v1", "jobs", "", kind("batch", "Job"), create},
	}
	policyWrites = []entry{
		{"", "v1", "configmaps", "", kind("", "ConfigMap"), createUpdate},
	}
	validates = []entry{
		{"apps", "v1", "deployments", "", deploymentKind, all},
		{"apps", "v1", "replicasets", "", kind("apps", "ReplicaSet"), createUpdate},
		{"apps", "v1", "statefulsets", "", kind("apps", "StatefulSet"), createUpdate},
		{"apps", "v1", "daemonsets", "", kind("apps", "DaemonSet"), createUpdate},
		{"apps", "v1", "deployments", "scale", scale, update},
		{"apps", "v1", "replicasets", "scale", scale, update},
		{"apps", "v1", "statefulsets", "scale", scale, update},
		{"batch", "v1", "jobs", "", kind("batch", "Job"), createUpdate},
		{"batch", "v1", "cronjobs", "", kind("batch", "CronJob"), createUpdate},
		{"", "v1", "pods", "", podKind, all},
		{"", "v1", "pods", "ephemeralcontainers", kind("", "Pod"), update},
		{"", "v1", "pods", "resize", kind("", "Pod"), update},
		{"", "v1", "persistentvolumeclaims", "", claimKind, all},
		{"", "v1", "services", "", kind("", "Service"), all},
		{"", "v1", "replicationcontrollers", "", kind("", "ReplicationController"), createUpdate},
		{"", "v1", "replicationcontrollers", "scale", scale, update},
	}
)

func kind(group, name string) schema.GroupVersionKind {
	return schema.GroupVersionKind{Group: group, Version: "v1", Kind: name}
}

func (e *entry) String() string {
	s := schema.GroupVersionResource{Group: e.group, Version: e.version, Resource: e.resource}.GroupResource().String()
	if e.subresource != "" {
		s += "/" + e.subresource
	}
	return s
}

func (e *entry) concerns(r *request) bool {
	return e.resource == r.Resource.Resource && e.group == r.Resource.Group && e.version == r.Resource.Version &&
		e.subresource == r.SubResource
}

// understand returns the entry that a request falls under. The error says what would be understood.
func understand(entries []entry, r *request) (*entry, error) {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.concerns(r) })
	if i < 0 {
		return nil, fmt.Errorf("resource %q, version %q, subresource %q is not understood; known are %s",
			schema.GroupResource{Group: r.Resource.Group, Resource: r.Resource.Resource}, r.Resource.Version, r.SubResource,
			listed(entries))
	}
	e := &entries[i]
	if got := schema.GroupVersionKind(r.Kind); got != e.kind {
		return nil, fmt.Errorf("kind %q of %s is not understood; it should be %q", got, e, e.kind)
	}
	if !slices.Contains(e.operations, r.Operation) {
		return nil, fmt.Errorf("operation %q on %s is not understood; known are %v", r.Operation, e, e.operations)
	}
	if r.Namespace == "" {
		return nil, fmt.Errorf("request on %s has no namespace", e)
	}
	return e, nil
}

func listed(entries []entry) string {
	s := ""
	for i := range entries {
		if i > 0 {
			s += ", "
		}
		s += entries[i].String()
	}
	return s
}
