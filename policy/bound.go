package policy

import "fmt"

// maxViolations bounds the violations of one rule, and those of one verdict that are denials, warnings or audits. A
// request with more of them is no clearer for a longer list, and the list must not grow with what a stranger sends.
const maxViolations = 100

// full says that a rule has found as much as is reported. A rule that loops over a list of the request stops then.
func full(found []Violation) bool { return len(found) >= maxViolations }

// bounded cuts what a rule has found. The last entry says that there is more.
func bounded(rule string, found []Violation) []Violation {
	if !full(found) {
		return found
	}
	return append(found[:maxViolations:maxViolations], andMore(rule))
}

// collect adds a violation to a list of a verdict, unless the list is full.
func collect(list []Violation, v Violation) []Violation {
	switch {
	case len(list) < maxViolations:
		return append(list, v)
	case len(list) == maxViolations:
		return append(list, andMore(v.Rule))
	}
	return list
}

// andMore stands for the violations that are left out.
func andMore(rule string) Violation {
	return Violation{Rule: rule, Message: fmt.Sprintf("and more; only the first %d are listed", maxViolations)}
}
