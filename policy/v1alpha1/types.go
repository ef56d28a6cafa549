package v1alpha1

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// APIVersion and Kind of a policy file.
const (
	APIVersion = "lifecycle.dexorder.io/v1alpha1"
	Kind       = "LifecyclePolicy"
)

// LifecyclePolicy is the policy file.
type LifecyclePolicy struct {
	metav1.TypeMeta `json:",inline"`

	// RulesRevision is the revision of the rules that the file was written for. A rule of a later revision is audited and
	// not enforced, unless the file sets its enforcement. Default: 1, the rules of release v0.1.0.
	RulesRevision int32 `json:"rulesRevision,omitempty"`

	// Sidecar is the container that is injected into every agent.
	Sidecar Sidecar `json:"sidecar"`

	// Tiers says what each user type gets. A type that is left out, or a field of it, takes its default:
	// anonymous 15m and Delete, free 15m and Keep, paid 60m and Keep, enterprise Never and Keep.
	Tiers map[lifecycle.UserType]Tier `json:"tiers,omitempty"`

	// Idle holds what all tiers share of the idle shutdown.
	Idle Idle `json:"idle,omitzero"`

	// RestartRules says whether the agent container of a tier that shuts down gets container restart rules (KEP-5307),
	// by which the kubelet leaves an agent dead after exit code 42. Default: auto.
	RestartRules RestartRules `json:"restartRules,omitempty"`

	// SelfDelete says when an agent that ended with exit code 42 may delete its own Deployment.
	SelfDelete SelfDelete `json:"selfDelete,omitzero"`

	// Reaper says what is cleaned up, when, and how much of it at most.
	Reaper Reaper `json:"reaper,omitzero"`

	// Identities are the accounts that have a part to play.
	Identities Identities `json:"identities,omitempty"`

	// Profiles are the kinds of agent namespaces. A namespace belongs to at most one profile.
	Profiles []Profile `json:"profiles"`
}

// SidecarMode says whether agents get a sidecar.
type SidecarMode string

// The values of SidecarMode.
const (
	// SidecarInject: an agent that ended with exit code 42 is deleted within seconds, since its sidecar asks for it.
	SidecarInject SidecarMode = "Inject"

	// SidecarNone: the reaper deletes it, on a later pass. Agents have no way to the API server then, and no restart rules: without a
	// sidecar the kubelet would take an agent that it leaves dead for a Pod that has failed, and make another one.
	SidecarNone SidecarMode = "None"
)

// Sidecar describes the injected container.
type Sidecar struct {
	// Mode is Inject or None. Agents that run keep what they have until their template changes. Default: Inject.
	Mode SidecarMode `json:"mode,omitempty"`

	// Image is what new agents get, in full: registry, repository, and a tag or digest. Required.
	Image string `json:"image"`

	// AcceptedImages are allowlist entries for the sidecars of agents that were admitted earlier. They keep theirs
	// until their template changes. Must cover Image. Default: the repository of Image, any tag or digest.
	AcceptedImages []string `json:"acceptedImages,omitzero"`

	// Resources of the container. Default: requests cpu 1m, memory 16Mi; limits cpu 100m, memory 32Mi.
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
}

// Shutdown says whether idle agents of a tier stop.
type Shutdown string

// The values of Shutdown.
const (
	ShutdownWhenIdle Shutdown = "WhenIdle"
	ShutdownNever    Shutdown = "Never"
)

// Storage says what becomes of an agent's claims when the agent is deleted.
type Storage string

// The values of Storage.
const (
	StorageDelete Storage = "Delete"
	StorageKeep   Storage = "Keep"
)

// Tier is what a user type gets.
type Tier struct {
	// Shutdown is WhenIdle or Never.
	Shutdown Shutdown `json:"shutdown,omitempty"`

	// IdleTimeout is how long an agent may be without activity and triggers. At least 1m.
	IdleTimeout metav1.Duration `json:"idleTimeout,omitempty"`

	// Storage is Delete or Keep. A tier that never shuts down keeps it.
	Storage Storage `json:"storage,omitempty"`
}

// Idle holds what all tiers share of the idle shutdown.
type Idle struct {
	// CheckInterval is how often an agent looks whether it is idle. Default: 1m.
	CheckInterval metav1.Duration `json:"checkInterval,omitempty"`

	// Warning is how long before the stop an agent is warned. Default: 1m.
	Warning metav1.Duration `json:"warning,omitempty"`

	// SnoozeMax bounds how far an agent may put off its own stop. Default: 60m.
	SnoozeMax metav1.Duration `json:"snoozeMax,omitempty"`

	// Grace is what the agent's process gets between SIGTERM and SIGKILL. Default: 10s.
	Grace metav1.Duration `json:"grace,omitempty"`
}

// RestartRules switches container restart rules.
type RestartRules string

// The values of RestartRules. Auto follows the cluster: Kubernetes 1.35 or newer, and the API server keeps the field.
const (
	RestartRulesAuto RestartRules = "auto"
	RestartRulesOn   RestartRules = "on"
	RestartRulesOff  RestartRules = "off"
)

// SelfDelete holds what is asked of agents that delete themselves.
type SelfDelete struct {
	// ProofWindow is how long the exit of an agent counts whose container was started again. An agent that stays dead
	// can prove its exit at any time. Default: 60s.
	ProofWindow metav1.Duration `json:"proofWindow,omitempty"`

	// MinimumLifetime is how long an agent must have run when it ended: one that ends right after its
	// start is broken and not idle. Default: 10s.
	MinimumLifetime metav1.Duration `json:"minimumLifetime,omitempty"`

	// Breaker bounds how many agents delete themselves, in the whole cluster.
	Breaker Breaker `json:"breaker,omitzero"`
}

// Breaker is a circuit breaker: a bad image must not erase a fleet. Once it is open no agent deletes itself until an
// operator has released it.
type Breaker struct {
	// Burst is how many self-deletes may come at once. Default: 60.
	Burst int32 `json:"burst,omitempty"`

	// PerMinute is how many there may be a minute in the long run. Default: 30.
	PerMinute int32 `json:"perMinute,omitempty"`
}

// Identities are the accounts that have a part to play.
type Identities struct {
	// Gateway is the user name of the account that makes agents on demand.
	// Default: system:serviceaccount:dexorder-system:gateway.
	Gateway string `json:"gateway,omitempty"`

	// TierEditors may change an agent's user type, and only towards keeping storage.
	// Default: the gateway and the group system:masters.
	TierEditors Subjects `json:"tierEditors,omitzero"`

	// Reapers are the user names of the accounts that write owner references and user types onto claims.
	// Default: system:serviceaccount:dexorder-system:lifecycle-webhook and …:lifecycle-reaper.
	Reapers []string `json:"reapers,omitzero"`

	// Controllers are the user names of the cluster's workload controllers: the only ones that may create Pods, and
	// the ReplicaSets and Jobs between a workload and its Pods. Default: the controllers' service accounts in
	// kube-system, and system:kube-controller-manager for clusters where they share one account.
	Controllers []string `json:"controllers,omitzero"`
}

// Subjects are users and groups, as the API server names them.
type Subjects struct {
	// Users by their full name, such as system:serviceaccount:NAMESPACE:NAME.
	Users []string `json:"users,omitzero"`

	Groups []string `json:"groups,omitzero"`
}

// Adoption says how Pods are judged whose workload was created before this policy covered its namespace. That is known
// of a Deployment without the label that is written at its creation, and of workloads of kinds that are not allowed. Of
// other workloads, such as a Job where Jobs are allowed, only Profile.AdoptBefore tells it.
type Adoption string

// The values of Adoption.
const (
	AdoptionWarn    Adoption = "warn"
	AdoptionEnforce Adoption = "enforce"
)

// Profile is one kind of agent namespace.
type Profile struct {
	// Name appears in answers and metrics.
	Name string `json:"name"`

	Namespaces Namespaces `json:"namespaces"`

	// DefaultUserType is that of an agent without a user-type label. Default: free.
	DefaultUserType lifecycle.UserType `json:"defaultUserType,omitempty"`

	// ServiceAccount is what an agent runs as that names no account.
	ServiceAccount ServiceAccount `json:"serviceAccount,omitempty"`

	// Adoption of what was there before. Default: warn.
	Adoption Adoption `json:"adoption,omitempty"`

	// AdoptBefore is when the policy came to cover the namespaces, in RFC 3339. A workload of an allowed kind other than
	// Deployment that was created earlier counts as older than the policy. The API server writes the time of creation,
	// so that nobody can forge it. Default: never, so that no such workload counts as older.
	AdoptBefore *metav1.Time `json:"adoptBefore,omitempty"`

	Rules Rules `json:"rules,omitempty"`
}

// Namespaces selects namespaces by name, since labels can be removed by whoever may edit the namespace.
type Namespaces struct {
	// Names match exactly.
	Names []string `json:"names,omitempty"`

	// Prefixes match the beginning of a name that is longer than the prefix. A prefix ends in "-".
	Prefixes []string `json:"prefixes,omitempty"`

	// Except names namespaces that a prefix would match and that are left out: nothing is injected, judged or reaped
	// there. The registrations and admission policies have to leave them out, too. Servers older than this field
	// refuse a file that has it.
	Except []string `json:"except,omitzero"`
}

// Covers says whether a namespace is among them.
func (n *Namespaces) Covers(namespace string) bool {
	return slices.Contains(n.Names, namespace) || n.MatchingPrefix(namespace) != "" && !slices.Contains(n.Except, namespace)
}

// LeavesOut says whether a namespace is not among them though one of the prefixes matches it.
func (n *Namespaces) LeavesOut(namespace string) bool {
	return slices.Contains(n.Except, namespace) && n.MatchingPrefix(namespace) != ""
}

// MatchingPrefix returns the prefix that matches a namespace, empty if none does.
func (n *Namespaces) MatchingPrefix(namespace string) string {
	i := slices.IndexFunc(n.Prefixes, func(prefix string) bool {
		return len(namespace) > len(prefix) && strings.HasPrefix(namespace, prefix)
	})
	if i < 0 {
		return ""
	}
	return n.Prefixes[i]
}

// LeavesOut says whether a profile's prefix matches a namespace, which the profile leaves out, and no other profile
// covers it.
func (p *LifecyclePolicy) LeavesOut(namespace string) bool {
	leftOut := false
	for i := range p.Profiles {
		n := &p.Profiles[i].Namespaces
		if n.Covers(namespace) {
			return false
		}
		leftOut = leftOut || n.LeavesOut(namespace)
	}
	return leftOut
}

// ServiceAccount is the default account of a profile's agents.
type ServiceAccount struct {
	// Name is injected where the Pod template names no account. Empty: nothing is injected.
	Name string `json:"name,omitempty"`

	// MountToken is injected as automountServiceAccountToken where the template does not say. Left out: nothing is
	// injected.
	MountToken *bool `json:"mountToken,omitempty"`
}
