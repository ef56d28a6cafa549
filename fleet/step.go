package fleet

import (
	"fmt"
	"strings"

	"github.com/dexorder/agent-lifecycle/policy"
)

// String writes a step for people: a line with its outcome, and a line for each change.
func (s *Step) String() string {
	var b strings.Builder
	line := fmt.Sprintf("%s/%s: %s", s.Namespace, s.Name, s.Outcome)
	if s.Reason != "" {
		line += ": " + s.Reason
	}
	for i, part := range strings.Split(line, "\n") {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(policy.Printable(part) + "\n")
	}
	for _, change := range s.Changes {
		b.WriteString("  " + policy.Printable(change) + "\n")
	}
	return b.String()
}

// outcomes in the order in which they are counted up.
var outcomes = []Outcome{Renewed, Would, Vanished, LeftOut, Refused, Failed}

// String counts up what became of agents.
func (t Tally) String() string {
	var parts []string
	for _, o := range outcomes {
		if t[o] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t[o], o))
		}
	}
	if len(parts) == 0 {
		return "nothing is to be done"
	}
	return strings.Join(parts, ", ")
}
