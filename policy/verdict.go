package policy

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Violation is one thing that a rule objects to.
type Violation struct {
	// Rule is the id of the rule.
	Rule string `json:"rule"`

	// Field is the path of the offending field from the object's root, such as
	// spec.template.spec.containers[0].image.
	Field string `json:"field"`

	// Message names the offender and its value, and says what would be accepted.
	Message string `json:"message"`

	// Tolerated says why the violation is only warned about although its rule is enforced. Empty: it is not tolerated.
	Tolerated string `json:"tolerated,omitempty"`

	// Wait says whether the same request may be allowed later.
	Wait Wait `json:"-"`
}

// Wait says what a request that is refused may wait for.
type Wait int

// The values of Wait.
const (
	// WaitForNothing: the request is refused for good.
	WaitForNothing Wait = iota

	// WaitForExit: the kubelet has not reported yet that the agent ended. That takes it up to two seconds.
	WaitForExit

	// WaitForChange: something else stands in the way that is bound to go. Ask again.
	WaitForChange
)

// Verdict is the answer to a Request.
type Verdict struct {
	// Profile that covers the namespace. Empty: none does, and nothing was judged.
	Profile string

	// Namespace of the request.
	Namespace string

	// Prefix of the profile's that covers the namespace. Empty: it is covered by its name.
	Prefix string

	// Denials are violations of enforced rules: any of them refuses the request.
	Denials []Violation

	// Warnings are violations of rules in warn, and of Pods that are older than the policy or the rule. Each of the lists is
	// bounded; its last entry says if there are more.
	Warnings []Violation

	// Audits are violations of rules in audit.
	Audits []Violation

	// Unchecked says what could not be judged for want of Facts.
	Unchecked []string

	// SelfDelete is set when an agent is allowed to delete what is its own.
	SelfDelete *SelfDelete
}

// SelfDelete says why an agent was allowed to delete what is its own. It ends up in the audit log and in an Event.
type SelfDelete struct {
	// Deployment that the agent is.
	Deployment    string
	DeploymentUID types.UID

	// Charge says that the deletion is a new one and counts towards the circuit breaker. Asking again for an object
	// that is being deleted already is not.
	Charge bool

	UserType lifecycle.UserType

	// Pod is the caller. Its agent container is Container, whose run of ContainerID ended with ExitCode, as the kubelet
	// says.
	Pod         string
	PodUID      types.UID
	Container   string
	ContainerID string
	ExitCode    int32
	StartedAt   metav1.Time
	FinishedAt  metav1.Time
}

// Allowed says whether the request may pass.
func (v Verdict) Allowed() bool { return len(v.Denials) == 0 }

// Wait says what a request that was refused may wait for: for nothing if a single violation is for good, and for the
// exit alone if nothing else stands in the way.
func (v Verdict) Wait() Wait {
	wait := WaitForNothing
	for _, d := range v.Denials {
		if d.Wait == WaitForNothing {
			return WaitForNothing
		}
		wait = max(wait, d.Wait)
	}
	return wait
}
