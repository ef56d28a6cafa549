package sidecar

import "testing"

func TestSummary(t *testing.T) {
	for want, s := range map[string]sidecar{
		"no agent has ended; nothing was asked of the server":                          {},
		"the agent ended with exit code 1; nothing was asked of the server":            {lastEnd: &end{known: true, code: 1}},
		"the agent ended by signal 9; nothing was asked of the server":                 {lastEnd: &end{known: true, signal: 9}},
		"the agent has ended; deletion of Deployment agents/alice was accepted":        {lastEnd: &end{}, lastDeletion: &outcome{}},
		"no agent has ended; deletion of Deployment agents/alice was refused: too old": {lastDeletion: &outcome{next: refused, message: "too old"}},
		"the agent ended with exit code 42; deletion of Deployment agents/alice was not decided: no route": {
			lastEnd: &end{known: true, code: 42}, lastDeletion: &outcome{next: again, message: "no route"},
		},
		"the agent ended with exit code 42; deletion of Deployment agents/alice was asked for and not answered yet": {
			lastEnd: &end{known: true, code: 42}, asking: true,
		},
	} {
		s.Namespace, s.Deployment = "agents", "alice"
		if got := s.summary(); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
