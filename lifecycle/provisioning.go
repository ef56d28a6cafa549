package lifecycle

// AnnotationDeprovisioned on a role agent's namespace says since when it is no longer wanted, and who said so: "TIME WHO". What ran
// there was stopped, and the reaper takes it for what it then is: idle. It counts for no less, and is no mark for reaping by itself.
const AnnotationDeprovisioned = Prefix + "deprovisioned"

// AnnotationReplicasBefore on a workload that was stopped is how many replicas it had; on a CronJob it says "1", and that it was not
// suspended.
const AnnotationReplicasBefore = Prefix + "replicas-before"

// AnnotationEgressTo on a NetworkPolicy says what it opens, where that depends on the cluster: EgressToAPIServer or EgressToInternet.
const AnnotationEgressTo = Prefix + "egress-to"

// Values of AnnotationEgressTo.
const (
	// EgressToAPIServer: the peers are the addresses of the API server, and there are no others.
	EgressToAPIServer = "api-server"

	// EgressToInternet: everything but private ranges, and but the addresses of the API server.
	EgressToInternet = "internet"
)

// NamespacePlaceholder in a role's template stands for the name of the namespace.
const NamespacePlaceholder = "{namespace}"
