package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
)

// Enforcement says what a violation of a rule leads to.
type Enforcement string

// The values of Enforcement.
const (
	// Enforce refuses the request. It is the default.
	Enforce Enforcement = "enforce"
	// Warn admits it and tells the user.
	Warn Enforcement = "warn"
	// Audit admits it silently and leaves a trace in the audit log and the metrics.
	Audit Enforcement = "audit"
)

// Rules are the rules of a profile, under their ids. A rule that is left out is enforced with its defaults; one that is
// newer than LifecyclePolicy.RulesRevision is audited.
type Rules struct {
	ImageAllowlist ImageAllowlist `json:"image-allowlist,omitempty"`
	PodSecurity    PodSecurity    `json:"pod-security,omitempty"`

	// ReadOnlyRootfs asks every container to set readOnlyRootFilesystem.
	ReadOnlyRootfs Rule `json:"read-only-rootfs,omitempty"`

	// ReservedUIDs keeps containers from running as the sidecar's user or as that of the Pod's pause process.
	ReservedUIDs Rule `json:"reserved-uids,omitempty"`

	ResourceLimits ResourceLimits `json:"resource-limits,omitempty"`

	// RecreateStrategy asks Deployments for the Recreate strategy: never two Pods of an agent at once.
	RecreateStrategy Rule `json:"recreate-strategy,omitempty"`

	// AgentContainer asks that it be clear which container runs the agent.
	AgentContainer Rule `json:"agent-container,omitempty"`

	// SidecarIntegrity asks for the sidecar once, and as it was injected.
	SidecarIntegrity Rule `json:"sidecar-integrity,omitempty"`

	Volumes    Volumes    `json:"volumes,omitempty"`
	References References `json:"references,omitempty"`
	Replicas   Replicas   `json:"replicas,omitempty"`

	// Identity keeps the labels by which an agent is known from being changed.
	Identity Rule `json:"identity,omitempty"`

	ServiceAccounts ServiceAccounts `json:"service-account,omitempty"`
	WorkloadKind    WorkloadKind    `json:"workload-kind,omitempty"`

	// Terminating keeps a workload that is being deleted from being edited.
	Terminating Rule `json:"terminating,omitempty"`

	// SelfDelete lets an agent delete what is its own, once it has ended because it was idle, and nothing else. What it
	// asks for is in LifecyclePolicy.SelfDelete.
	SelfDelete Rule `json:"self-delete,omitempty"`

	// Gateway keeps the gateway from deleting, and from handing objects to the garbage collector.
	Gateway Rule `json:"gateway,omitempty"`

	// Claims keeps whose a PersistentVolumeClaim is and what its user was promised.
	Claims Rule `json:"claims,omitempty"`

	// ServiceLinks keeps the names and addresses of the namespace's Services out of the environment of containers.
	// Since revision 2.
	ServiceLinks Rule `json:"service-links,omitempty"`

	// ObjectSize bounds how much a Pod template lists, before the other rules look at it. Since revision 2.
	ObjectSize ObjectSize `json:"object-size,omitempty"`
}

// Rule is the configuration of a rule without parameters, and part of every other.
type Rule struct {
	// Enforcement. Default: enforce; audit for a rule that is newer than LifecyclePolicy.RulesRevision.
	Enforcement Enforcement `json:"enforcement,omitempty"`
}

// ImageAllowlist says which images may run, in every container of every sort and in image volumes. The sidecar's own
// images (LifecyclePolicy.Sidecar) need not be listed.
type ImageAllowlist struct {
	Rule `json:",inline"`

	// Images are allowlist entries: host/path/* is every repository below that path, host/path/repo is that
	// repository with any tag or digest, host/path/repo:tag and host/path/repo@sha256:… are exactly that. Required.
	Images []string `json:"images"`
}

// PodSecurity asks for a Pod Security Standard.
type PodSecurity struct {
	Rule `json:",inline"`

	// Level is privileged, baseline or restricted. Default: restricted.
	Level string `json:"level,omitempty"`

	// Version pins the standard, so that an upgrade of the server changes no verdict: v1.36, say. Default: v1.36.
	Version string `json:"version,omitempty"`
}

// ResourceLimits asks for limits and requests.
type ResourceLimits struct {
	Rule `json:",inline"`

	// Limits that every container must have, itself or through its Pod. Default: cpu, memory.
	Limits []corev1.ResourceName `json:"limits,omitzero"`

	// Requests that every container must have, itself or through its Pod; a limit implies its request.
	// Default: cpu, memory.
	Requests []corev1.ResourceName `json:"requests,omitzero"`

	// Max bounds each container's, and the Pod's own, limits and requests. Default: no bound.
	Max corev1.ResourceList `json:"max,omitempty"`
}

// Volumes says what an agent may mount.
type Volumes struct {
	Rule `json:",inline"`

	// Types of volume, as the API names them. Default: configMap, csi, downwardAPI, emptyDir, ephemeral, image,
	// persistentVolumeClaim, projected, secret. What the profile's references rule says of them holds as well.
	Types []string `json:"types,omitzero"`

	// Claims are names of claims, with {deployment} for the agent's name, that an agent may mount before they exist.
	// A claim that exists must carry the agent's deployment label, and no other Deployment may mount it; "*" allows
	// any claim. Default: {deployment}-data.
	Claims []string `json:"claims,omitzero"`
}

// References says which Secrets, ConfigMaps, drivers and tokens an agent's Pod may use, by any way: volumes, projected
// sources, env, envFrom, image pull secrets, CSI. Names are exact, with {deployment} for the agent's name; "*" is any.
type References struct {
	Rule `json:",inline"`

	// Secrets. Default: {deployment}-secrets.
	Secrets []string `json:"secrets,omitzero"`

	// ConfigMaps beside kube-root-ca.crt, which everybody may read. Default: {deployment}-config.
	ConfigMaps []string `json:"configMaps,omitzero"`

	// PullSecrets are the names allowed in imagePullSecrets. Default: none.
	PullSecrets []string `json:"pullSecrets,omitzero"`

	// CSIDrivers are the drivers allowed in inline CSI volumes, by their names in the cluster. Default: none.
	CSIDrivers []string `json:"csiDrivers,omitzero"`

	// Tokens allows projected service account tokens beside the sidecar's. Default: false.
	Tokens bool `json:"tokens,omitempty"`
}

// Replicas bounds the replicas of a workload, also through its scale subresource.
type Replicas struct {
	Rule `json:",inline"`

	// Max number of replicas. Default: 1.
	Max *int32 `json:"max,omitempty"`
}

// ServiceAccounts says what an agent may run as.
type ServiceAccounts struct {
	Rule `json:",inline"`

	// Names of accounts, with {deployment} for the agent's name; "*" is any. Default: the profile's serviceAccount
	// name, or any where it has none.
	Names []string `json:"names,omitzero"`

	// MountToken allows automountServiceAccountToken. Default: the profile's serviceAccount mountToken, or true.
	MountToken *bool `json:"mountToken,omitempty"`
}

// ObjectSize bounds the lists of a Pod template. Each of them counts all containers: init, ordinary and ephemeral.
type ObjectSize struct {
	Rule `json:",inline"`

	// MaxContainers is how many containers there may be, the sidecar included. Default: 100.
	MaxContainers *int32 `json:"maxContainers,omitempty"`

	// MaxVolumes is how many volumes there may be. Default: 100.
	MaxVolumes *int32 `json:"maxVolumes,omitempty"`

	// MaxEnv is how many entries env and envFrom may have, of all containers together. Default: 1000.
	MaxEnv *int32 `json:"maxEnv,omitempty"`

	// MaxVolumeMounts is how many volumeMounts there may be, of all containers together. Default: 1000.
	MaxVolumeMounts *int32 `json:"maxVolumeMounts,omitempty"`
}

// WorkloadKind says which kinds of workload a namespace may hold.
type WorkloadKind struct {
	Rule `json:",inline"`

	// Kinds: Deployment, StatefulSet, DaemonSet, Job, CronJob. Default: Deployment. ReplicaSets, Jobs and Pods are
	// admitted from the controller of a kind that is listed.
	Kinds []string `json:"kinds,omitzero"`
}
