package policy

// Violation is one thing that a rule objects to.
type Violation struct {
	// Rule is the id of the rule.
	Rule string

	// Field is the path of the offending field from the object's root, such as
	// spec.template.spec.containers[0].image.
	Field string

	// Message names the offender and its value, and says what would be accepted.
	Message string
}

// Verdict is the answer to a Request.
type Verdict struct {
	// Profile that covers the namespace. Empty: none does, and nothing was judged.
	Profile string

	// Denials are violations of enforced rules: any of them refuses the request.
	Denials []Violation

	// Warnings are violations of rules in warn, and of Pods that are older than the policy.
	Warnings []Violation

	// Audits are violations of rules in audit.
	Audits []Violation

	// Unchecked says what could not be judged for want of Facts.
	Unchecked []string
}

// Allowed says whether the request may pass.
func (v Verdict) Allowed() bool { return len(v.Denials) == 0 }
