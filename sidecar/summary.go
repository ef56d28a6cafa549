package sidecar

import "fmt"

// summary says what the sidecar has seen and done. It is what remains to be read in the Pod when the logs have gone.
func (s *sidecar) summary() string {
	return describeEnd(s.lastEnd) + "; " + describeDeletion(s.lastDeletion, s.Namespace+"/"+s.Deployment, s.asking)
}

func describeEnd(e *end) string {
	switch {
	case e == nil:
		return "no agent has ended"
	case !e.known:
		return "the agent has ended"
	case e.signal != 0:
		return fmt.Sprintf("the agent ended by signal %d", e.signal)
	}
	return fmt.Sprintf("the agent ended with exit code %d", e.code)
}

func describeDeletion(o *outcome, deployment string, asking bool) string {
	switch {
	case asking:
		return "deletion of Deployment " + deployment + " was asked for and not answered yet"
	case o == nil:
		return "nothing was asked of the server"
	case o.next == done:
		return "deletion of Deployment " + deployment + " was accepted"
	case o.next == refused:
		return "deletion of Deployment " + deployment + " was refused: " + o.message
	}
	return "deletion of Deployment " + deployment + " was not decided: " + o.message
}
