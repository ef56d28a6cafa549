package lifecycle

import "strings"

// RoleNamespacePrefix starts the name of every role agent's namespace. One that does not begin so is never reaped, whatever its
// labels say.
const RoleNamespacePrefix = "agent-"

// Annotations by which people speak to the reaper. As labels the first two mean the same: see Protection.
const (
	// AnnotationDoNotReap on a namespace, or on a Pod, workload, claim or Service in it, protects the namespace. On an agent's
	// Deployment, a claim or a leftover it protects that object, also from the agent's own idleness. Any value but "false" does.
	AnnotationDoNotReap = "do-not-reap"

	// AnnotationDoNotReapUntil protects until a time in RFC 3339. A value that cannot be read protects for ever.
	AnnotationDoNotReapUntil = "do-not-reap-until"

	// AnnotationExpiresAt on an object that an agent made says from when on nobody needs it, in RFC 3339.
	AnnotationExpiresAt = Prefix + "expires-at"
)

// Annotations that the reaper writes on a role agent's namespace. All are times in RFC 3339 unless they say otherwise.
const (
	// AnnotationLastPodActivity is when a Pod last appeared, changed or ended. Unix seconds are read too, unless they mean a
	// time before the namespace was created. What is absent, in the future or cannot be read is repaired to now.
	AnnotationLastPodActivity = "last-pod-activity"

	// AnnotationIdleSince is when a reaper first saw that nothing runs there. It goes as soon as something does.
	AnnotationIdleSince = Prefix + "idle-since"

	// AnnotationSightings counts the consecutive passes that found the namespace ready to go.
	AnnotationSightings = Prefix + "sightings"

	// AnnotationReaping is when the namespace was marked: from then on it takes no new Pods and workloads.
	AnnotationReaping = Prefix + "reaping"

	// AnnotationPhase is what the namespace is at, and since when: "TIME PHASE", one of active, unhealthy, idle and marked.
	AnnotationPhase = Prefix + "phase"

	// AnnotationDrift says in short how the namespace differs from its role's template. It goes when it does no more.
	AnnotationDrift = Prefix + "drift"

	// AnnotationUnhealthy says what is wrong with the agent there, and since when: "TIME REASON".
	AnnotationUnhealthy = Prefix + "unhealthy"
)

// AnnotationOrphanedSince is when a reaper first saw that an object in an agent's namespace belongs to nobody any more.
const AnnotationOrphanedSince = Prefix + "orphaned-since"

// The stamp on what an agent made: the webhook writes it at creation, and takes it off what anybody else creates.
const (
	// LabelCreatedByPodUID is the UID of the Pod whose token made the object. A label, so that stamped objects can be listed
	// without reading the others.
	LabelCreatedByPodUID = Prefix + "created-by-pod-uid"

	// AnnotationCreatedByPod is that Pod's name.
	AnnotationCreatedByPod = Prefix + "created-by-pod"
)

// FieldManagerProvision is who owns what "kubectl agents provision" applies.
const FieldManagerProvision = "agent-lifecycle-provision"

// ProvisionedTemplateName is the name of the template that it leaves in the system's namespace: of a role in one org and environment.
func ProvisionedTemplateName(role, org, environment string) string {
	return strings.Join([]string{"role", role, org, environment}, ".")
}

// LabelRoleTemplate on a ConfigMap in the system's namespace says that its values are YAML documents of what the namespace of a role's
// agent holds. Its own value is the role, as LabelAgentRole has it. NamespacePlaceholder in them stands for the namespace's name. Where
// the ConfigMap has LabelOrg or LabelEnvironment too, it is for namespaces of that org or environment alone.
const LabelRoleTemplate = Prefix + "role-template"
