package policy

import (
	"fmt"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Rule is one thing that is asked of requests.
type Rule struct {
	// ID names the rule in the policy file, in answers and in metrics. It never changes.
	ID string

	// Summary is a line for people.
	Summary string

	// enforcement picks the rule's setting out of a profile's.
	enforcement func(*v1alpha1.Rules) v1alpha1.Enforcement

	// deletions says that the rule is also asked of deletions, of which there is no Request.Object.
	deletions bool

	// decisive says that the rules after it are not asked of a request that it refuses: what else is wrong with that would
	// only be noise.
	decisive bool

	// applies says whether the rule has something to say about the request.
	applies func(*Request) bool

	// check returns what the rule objects to. Rule ids are filled in by the caller. It may stop at maxViolations.
	check func(*Profile, *Request) []Violation
}

// Rules lists every rule, in the order in which violations are reported.
func Rules() []Rule {
	return []Rule{
		objectSize,
		workloadKind,
		identity,
		terminating,
		agentContainer,
		imageAllowlist,
		podSecurity,
		readOnlyRootfs,
		reservedUIDs,
		resourceLimits,
		recreateStrategy,
		replicas,
		serviceAccount,
		volumes,
		references,
		sidecarIntegrity,
		serviceLinks,
		claims,
		gateway,
		selfDelete,
	}
}

// violation builds a Violation. Whatever comes from the request is formatted with %q, so that a message cannot carry
// line breaks or terminal escapes of its own.
func violation(field, format string, args ...any) Violation {
	return Violation{Field: field, Message: fmt.Sprintf(format, args...)}
}
