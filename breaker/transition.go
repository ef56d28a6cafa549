package breaker

import "time"

// Transition is an opening or a closing of the breaker.
type Transition struct {
	// Open says which of the two.
	Open bool

	// Time is when it happened. It is the same in every process that sees it, and tells one opening from the next.
	Time time.Time

	// By is who did it; empty if the breaker did it by itself.
	By string

	// Reason says why it opened. A breaker that an operator has released has none.
	Reason string
}

// closedByItself is why the breaker closes although nobody has released it.
const closedByItself = "deletions that had opened it did not come about"

// lastTransition returns what happened last; false if nothing ever did.
func lastTransition(s *State) (Transition, bool) {
	t := Transition{Open: s.Open, Time: s.Since, By: s.ReleasedBy}
	switch {
	case s.Open:
		t.By, t.Reason = s.OpenedBy, s.Reason
	case s.Since.IsZero():
		return Transition{}, false
	case s.ReleasedBy == "":
		t.Reason = closedByItself
	}
	return t, true
}
