package events

import "time"

// NamespaceData goes with events about the namespace of a role agent.
type NamespaceData struct {
	Namespace string `json:"namespace"`

	// UID is the namespace's: one that is made again under the same name is another.
	UID string `json:"uid"`

	// Role, Org and Environment are its labels.
	Role        string `json:"role,omitempty"`
	Org         string `json:"org,omitempty"`
	Environment string `json:"environment,omitempty"`

	// Reason is for people.
	Reason string `json:"reason,omitempty"`

	// Details are the finalizers that hold a namespace which is stuck, and the differences of one that drifts.
	Details []string `json:"details,omitempty"`

	// Since is from when on it has been so. It tells one event of a type from the next one of the same namespace.
	Since time.Time `json:"since,omitzero"`

	// LastActivity is when a Pod there last appeared, changed or ended.
	LastActivity time.Time `json:"lastActivity,omitzero"`
}

// AgentData goes with events about an agent.
type AgentData struct {
	Namespace string `json:"namespace"`

	// Deployment is the agent's name, UID its Deployment's.
	Deployment string `json:"deployment"`
	UID        string `json:"uid"`

	UserType string `json:"userType,omitempty"`

	// Pod is the name of the Pod that runs or ran the agent.
	Pod string `json:"pod,omitempty"`

	// ExitCode is the agent container's, once it has ended.
	ExitCode *int32 `json:"exitCode,omitempty"`

	// Reason is for people.
	Reason string `json:"reason,omitempty"`

	// Time is when it happened by the cluster's own account: the kubelet's timestamps, the Deployment's creation. It tells one
	// start or end of an agent from the next. Of AgentIdle it is by the agent's own account.
	Time time.Time `json:"time,omitzero"`

	// Deadline is when an agent that was warned stops. It tells one warning from the next.
	Deadline time.Time `json:"deadline,omitzero"`
}

// CapData goes with ReaperCapExceeded.
type CapData struct {
	// Kind of the objects, such as Namespace.
	Kind string `json:"kind"`

	// Candidates is how many the pass would have deleted, Allowed how many it may, Total how many there are.
	Candidates int `json:"candidates"`
	Allowed    int `json:"allowed"`
	Total      int `json:"total"`

	// Reason is for people.
	Reason string `json:"reason,omitempty"`

	// Since is when the first of the passes in a row met the cap.
	Since time.Time `json:"since"`
}

// BreakerData goes with BreakerOpened and BreakerClosed.
type BreakerData struct {
	// Namespace, ConfigMap and UID say where the breaker keeps its state.
	Namespace string `json:"namespace"`
	ConfigMap string `json:"configMap"`
	UID       string `json:"uid"`

	// By is the user name of who opened or released it, as the API server knows it; absent if nobody did.
	By string `json:"by,omitempty"`

	// Reason is for people.
	Reason string `json:"reason,omitempty"`

	// Since is when it opened or closed. It tells one opening from the next.
	Since time.Time `json:"since"`
}

// Namespace returns an event of one of the Namespace types. Source is who says so; at is when it is said.
func Namespace(source string, t Type, d NamespaceData, at time.Time) Event {
	return Event{ID: id(t, d.UID, d.Since, at), Source: source, Type: t, Subject: "namespaces/" + d.Namespace, Time: at, Data: d}
}

// Agent returns an event of one of the Agent types. Source is who says so; at is when it is said.
func Agent(source string, t Type, d AgentData, at time.Time) Event {
	since := d.Time
	if t == AgentWarning {
		since = d.Deadline
	}
	return Event{
		ID: id(t, d.UID, since, at), Source: source, Type: t,
		Subject: "namespaces/" + d.Namespace + "/deployments/" + d.Deployment, Time: at, Data: d,
	}
}

// Cap returns a ReaperCapExceeded. Source is who says so; at is when it is said.
func Cap(source string, d CapData, at time.Time) Event {
	return Event{
		ID: id(ReaperCapExceeded, d.Kind, d.Since, at), Source: source, Type: ReaperCapExceeded, Subject: "kinds/" + d.Kind,
		Time: at, Data: d,
	}
}

// Breaker returns a BreakerOpened or BreakerClosed. Source is who says so; at is when it is said.
func Breaker(source string, t Type, d BreakerData, at time.Time) Event {
	return Event{
		ID: id(t, d.UID, d.Since, at), Source: source, Type: t, Subject: "namespaces/" + d.Namespace + "/configmaps/" + d.ConfigMap,
		Time: at, Data: d,
	}
}

// id is the same whoever asks. Kubernetes keeps times in seconds: a time from memory must give what the same time gives after
// it was written to an object and read again. Where it is not known since when, two events of a type must not be taken for one:
// then at stands in for it.
func id(t Type, uid string, since, at time.Time) string {
	key := string(t) + "/" + uid
	if t.once() {
		return key
	}
	if since.IsZero() {
		since = at
	}
	return key + "/" + since.UTC().Truncate(time.Second).Format(time.RFC3339)
}
