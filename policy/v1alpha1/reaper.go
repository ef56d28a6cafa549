package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Reaper says what is cleaned up, when, and how much of it at most. Each kind of thing has a mode of its own.
type Reaper struct {
	// DryRun makes every reaper say what it would do instead of doing it, whatever its mode. Default: false.
	DryRun bool `json:"dryRun,omitempty"`

	// Interval is between two passes over the cluster. Default: 1m.
	Interval metav1.Duration `json:"interval,omitempty"`

	// Sightings is how many consecutive passes must find a namespace ready to go before it is marked. Default: 2.
	Sightings int32 `json:"sightings,omitempty"`

	// Parallelism is how many things are worked on at once. Default: 4.
	Parallelism int32 `json:"parallelism,omitempty"`

	// Cap bounds what one pass may delete.
	Cap Cap `json:"cap,omitzero"`

	// Namespaces of role agents that are gone.
	Namespaces NamespaceReaper `json:"namespaces,omitzero"`

	// Agents that ended because they were idle and are still there.
	Agents AgentReaper `json:"agents,omitzero"`

	// Claims of agents whose user type deletes storage, and that are gone.
	Claims ClaimReaper `json:"claims,omitzero"`

	// Leftovers are ConfigMaps, Secrets and Jobs that role agents made and forgot.
	Leftovers LeftoverReaper `json:"leftovers,omitzero"`

	// Drift is what a role agent's namespace lacks of its role's template, or has otherwise.
	Drift Drift `json:"drift,omitzero"`
}

// ReaperMode switches one kind of reaping.
type ReaperMode string

// The values of ReaperMode.
const (
	// ReaperDelete deletes.
	ReaperDelete ReaperMode = "Delete"

	// ReaperDryRun says what it would delete.
	ReaperDryRun ReaperMode = "DryRun"

	// ReaperOff looks at nothing.
	ReaperOff ReaperMode = "Off"
)

// Cap bounds what one pass may delete of one kind. A pass that would exceed it deletes nothing of that kind and says so: that so
// much is dead at once is more likely a mistake.
type Cap struct {
	// Count is how many there may be. Default: 50.
	Count int32 `json:"count,omitempty"`

	// Percent is how many there may be of all that exist; 5 are always allowed. Default: 25.
	Percent int32 `json:"percent,omitempty"`
}

// NamespaceReaper says when a role agent's namespace is reaped: when it is ours by label and name, nothing has run there for a
// while, nothing wants to, and nobody protects it.
type NamespaceReaper struct {
	// Mode is Delete, DryRun or Off. Default: Delete.
	Mode ReaperMode `json:"mode,omitempty"`

	// Orgs are the values of the label org by which a namespace is ours. Default: none, so that none is reaped.
	Orgs []string `json:"orgs,omitzero"`

	// IdleAfter is how long nothing must have run. At least 10s. Default: 1h.
	IdleAfter metav1.Duration `json:"idleAfter,omitempty"`

	// UnhealthyAfter is how long an agent may be not ready before it is reported. Default: 20m.
	UnhealthyAfter metav1.Duration `json:"unhealthyAfter,omitempty"`

	// Retain is how long the objects of a reaped namespace and its volumes are kept, to be brought back by
	// kubectl agents restore. Default: 0, nothing is kept.
	Retain metav1.Duration `json:"retain,omitempty"`

	// RetainSecrets keeps the values of Secrets, too. Default: false.
	RetainSecrets bool `json:"retainSecrets,omitempty"`
}

// AgentReaper says when an agent that ended with exit code 42 is deleted by the reaper, because no sidecar did it.
type AgentReaper struct {
	// Mode is Delete, DryRun or Off. Default: Delete.
	Mode ReaperMode `json:"mode,omitempty"`

	// After is how long its sidecar has. An agent without a sidecar does not wait. Default: 2m.
	After metav1.Duration `json:"after,omitempty"`
}

// ClaimReaper says when a claim of a user type that deletes storage goes whose Deployment is gone.
type ClaimReaper struct {
	// Mode is Delete, DryRun or Off. Default: Delete.
	Mode ReaperMode `json:"mode,omitempty"`

	// After is how long the Deployment must have been gone. At least 10s. Default: 10m.
	After metav1.Duration `json:"after,omitempty"`
}

// LeftoverReaper says when what an agent's Pod made goes: when that Pod and its workload are gone, nobody writes to
// it and nothing refers to it, when a Job has finished, or when its annotation lifecycle.dexorder.io/expires-at has
// passed.
type LeftoverReaper struct {
	// Mode is Delete, DryRun or Off. Default: Delete.
	Mode ReaperMode `json:"mode,omitempty"`

	// After is how long nobody must have written to a leftover until it is noted as one, and how long it must then
	// stay so. At least 10s. Default: 1h.
	After metav1.Duration `json:"after,omitempty"`

	// FinishedJobs is how long a Job that an agent made is kept after it has finished. Default: 1h.
	FinishedJobs metav1.Duration `json:"finishedJobs,omitempty"`
}

// Drift says how namespaces of role agents are compared with the template of their role: a ConfigMap in the system's namespace with
// the label lifecycle.dexorder.io/role-template. Nothing is changed; what differs is reported.
type Drift struct {
	// Mode is Report or Off. Default: Report.
	Mode DriftMode `json:"mode,omitempty"`

	// Interval is how often a namespace in which nothing is seen to come or go is compared. At least 10s. Default: 15m.
	Interval metav1.Duration `json:"interval,omitempty"`
}

// DriftMode switches the comparison.
type DriftMode string

// The values of DriftMode.
const (
	// DriftReport reports what differs.
	DriftReport DriftMode = "Report"

	// DriftOff compares nothing.
	DriftOff DriftMode = "Off"
)
