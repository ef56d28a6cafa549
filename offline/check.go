package offline

import (
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
)

// Judge judges and injects objects.
type Judge struct {
	Policy *policy.Policy

	// Namespace of objects that name none.
	Namespace string
}

// Outcome is what became of an object.
type Outcome int

// The outcomes.
const (
	Admitted Outcome = iota
	Denied

	// DeniedAsPods is an object of a custom kind that the webhook does not look at, and whose Pods it would refuse.
	DeniedAsPods

	// NotJudged is an object that the webhook does not look at. It is allowed.
	NotJudged

	// NotUnderstood is an object that could not be read, or whose API version the cluster does not have.
	NotUnderstood
)

func (o Outcome) String() string {
	return [...]string{"admitted", "denied", "denied as Pods", "not judged", "not understood"}[o]
}

// Finding is one thing to say about an object.
type Finding struct {
	// Rule is the id of the rule that found it. Empty for a warning of no rule, not-understood for an object that could
	// not be judged.
	Rule string

	// Field is the path from the object's root, and Line where that is in the file.
	Field string
	Line  int

	Message string
}

// notUnderstood stands in Finding.Rule where no rule could be asked, for programs to tell.
const notUnderstood = "not-understood"

// String returns the finding on one line, without its place.
func (f Finding) String() string {
	rule := f.Rule
	if rule == notUnderstood {
		rule = ""
	}
	var parts []string
	for _, part := range []string{rule, f.Field, f.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Verdict is what is said of one object.
type Verdict struct {
	Object *manifest.Object

	// Namespace the object would be in. For an object that is no workload, what it says itself: that it says nothing may
	// mean that it belongs to the cluster.
	Namespace string

	Outcome  Outcome
	Reasons  []Finding
	Warnings []Finding
}

// Allowed says whether the object may pass. What is not understood may not.
func (v *Verdict) Allowed() bool { return v.Outcome == Admitted || v.Outcome == NotJudged }

// Check judges an object as the webhook would on its creation.
func (j *Judge) Check(o *manifest.Object) Verdict {
	v := Verdict{Object: o, Namespace: o.Namespace}
	if isWorkload(o) {
		v.Namespace = j.namespaceOf(o)
	}
	s, failure := j.read(o)
	switch {
	case failure != nil:
		v.Outcome = NotUnderstood
		v.Reasons = []Finding{asFinding(o, failure)}
		return v
	case s == nil:
		v.Outcome = NotJudged
		if isCustom(o) {
			j.checkCustom(o, &v)
		}
		return v
	}
	j.inject(o, s)
	review := j.Policy.Review(&policy.Request{
		Operation: admissionv1.Create,
		Namespace: s.namespace,
		Name:      o.Name,
		Object:    s.Object,
	})
	if !review.Allowed() {
		v.Outcome = Denied
	}
	v.Reasons = asFindings(o, review.Denials)
	v.Warnings = slices.Concat(s.warnings, asFindings(o, review.Warnings))
	if len(review.Unchecked) > 0 {
		v.Warnings = append(v.Warnings, Finding{
			Line:    o.Line(""),
			Message: "not checked without a cluster: " + strings.Join(review.Unchecked, "; "),
		})
	}
	return v
}

func asFinding(o *manifest.Object, e *manifest.Error) Finding {
	f := Finding{Rule: notUnderstood, Field: e.Field, Line: e.Line, Message: e.Message}
	if f.Line == 0 {
		f.Line = o.Line(e.Field)
	}
	return f
}

func asFindings(o *manifest.Object, violations []policy.Violation) []Finding {
	var findings []Finding
	for _, v := range violations {
		findings = append(findings, Finding{Rule: v.Rule, Field: v.Field, Line: o.Line(v.Field), Message: v.Message})
	}
	return findings
}
