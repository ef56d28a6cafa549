package lifecycle

// Prefix starts every label and annotation key that the system owns.
const Prefix = "lifecycle.dexorder.io/"

// Labels of an agent: on its Deployment and on the Deployment's Pod template.
const (
	// LabelDeployment carries the Deployment's name. The webhook writes it and nobody may change it: the sidecar, the
	// reaper and the volume rules know an agent's objects by it.
	LabelDeployment = Prefix + "deployment"

	// LabelUserType carries a UserType. The Deployment's label is the authority, the template's is a copy of it.
	LabelUserType = Prefix + "user-type"
)

// AnnotationAgentContainer is on the Deployment's Pod template and names the container that runs the agent, where it is not
// called AgentContainer. Users write it where there are several; for the only one the webhook does.
const AnnotationAgentContainer = Prefix + "agent-container"

// Annotations of a user agent's Deployment and claim, by which the gateway knows them again.
const (
	// AnnotationUser is whose agent it is: the user's id, escaped as a segment of a URL's path.
	AnnotationUser = Prefix + "user"

	// AnnotationRequest is what the user's agent was asked to be beyond its user type: JSON with image and env. On the claim it
	// outlives the Deployment.
	AnnotationRequest = Prefix + "request"

	// AnnotationTemplate is of which template of the gateway the Deployment was made, and as which of its revisions: HASH@REVISION.
	// Before that revision no Pod of it was ready.
	AnnotationTemplate = Prefix + "template"
)

// Labels of a role agent's namespace.
const (
	LabelAgentRole   = "agent-role"
	LabelOrg         = "org"
	LabelEnvironment = "environment"
)

// PolicyConfigMap and PolicyKey are where the policy file is, in the system's namespace.
const (
	PolicyConfigMap = "lifecycle-policy"
	PolicyKey       = "policy.yaml"
)

// Names inside an agent's Pod. All but AgentContainer belong to the system: what a user puts there is replaced.
const (
	// AgentContainer is the usual name of the container that runs the agent.
	AgentContainer = "agent"

	SidecarContainer = "lifecycle-sidecar"

	// RunVolume is an emptyDir on disk shared by the agent (read-write) and the sidecar (read-only).
	RunVolume = "lifecycle-run"

	// TokenVolume projects a service account token for the sidecar alone.
	TokenVolume = "lifecycle-token"
)

// Paths inside the containers.
const (
	// RunDir is where RunVolume is mounted in agent and sidecar.
	RunDir = "/var/run/agent"

	// TokenDir is where TokenVolume is mounted in the sidecar. It is the directory where Kubernetes itself would mount
	// a token, so that its ServiceAccount admission plugin adds no second one.
	TokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

	// ExitCodeFile holds the exit code of the agent in decimal, written before the agent's container ends. It is a hint:
	// the agent can write whatever it likes there.
	ExitCodeFile = RunDir + "/exit_code"

	// SocketFile is where the agent's lifecycle manager serves its API.
	SocketFile = RunDir + "/lifecycle.sock"
)

// ManagerPort is where a lifecycle manager serves the part of its API that is for the gateway, where it is told to.
const ManagerPort = 8377

// User IDs. They differ so that the agent can neither signal the sidecar or the Pod's pause process, nor read the
// sidecar's token through /proc/PID/root.
const (
	// AgentUID is what user containers run as unless they say otherwise.
	AgentUID int64 = 1000

	// SidecarUID is the sidecar's alone.
	SidecarUID int64 = 64042

	// PauseUID is what the pause process runs as when the Pod sets no user of its own.
	PauseUID int64 = 65535
)

// Environment variables of the sidecar, all by downward API.
const (
	EnvNamespace      = "NAMESPACE"
	EnvDeploymentName = "DEPLOYMENT_NAME"
	EnvUserType       = "USER_TYPE"
	EnvPodName        = "POD_NAME"
	EnvPodUID         = "POD_UID"
)

// Environment variables of the agent container beside EnvUserType, set by tier.
const (
	// EnvIdleTimeoutMinutes is how long an agent may be without activity and triggers. May be decimal.
	EnvIdleTimeoutMinutes = "IDLE_TIMEOUT_MINUTES"

	EnvIdleCheckIntervalSeconds = "IDLE_CHECK_INTERVAL_SECONDS"

	// EnvIdleWarningSeconds is how long before the stop an agent is warned.
	EnvIdleWarningSeconds = "IDLE_WARNING_SECONDS"

	// EnvIdleSnoozeMaxMinutes bounds how far an agent may put off its own stop. May be decimal.
	EnvIdleSnoozeMaxMinutes = "IDLE_SNOOZE_MAX_MINUTES"

	// EnvIdleGraceSeconds is what the agent's process gets between SIGTERM and SIGKILL when it is stopped for idleness.
	EnvIdleGraceSeconds = "IDLE_GRACE_SECONDS"

	EnvEnableIdleShutdown = "ENABLE_IDLE_SHUTDOWN"

	// EnvActivityKey is the public half of the key by which the gateway signs what it tells the agent's lifecycle
	// manager: base64 of the 32 bytes of an Ed25519 key. Absent in agents from before there was a key.
	EnvActivityKey = "GATEWAY_ACTIVITY_KEY"

	// EnvActivityAudience is whom those signatures are for: the Pod's UID, by downward API.
	EnvActivityAudience = "GATEWAY_ACTIVITY_AUDIENCE"
)

// ExitIdle is the exit code by which an agent says that it stopped because it was idle. It asks for the deletion of
// the agent's own Deployment; any other code is a stop or a crash and leads to a restart.
const ExitIdle = 42

// CauseJudged is the type of the causes that a refusal by the webhook's policy carries, each with a rule's id. The API server
// refuses with the same code by itself, while it starts and does not know its RBAC rules yet: that is no judgement.
const CauseJudged = "LifecyclePolicy"

// State is how far an agent's life has come.
type State string

// The states. An agent sees Running to Shutdown of its own; the others are seen from outside.
const (
	Created  State = "CREATED"
	Running  State = "RUNNING"
	Idle     State = "IDLE"
	Shutdown State = "SHUTDOWN"
	Deleted  State = "DELETED"
)
