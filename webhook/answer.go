package webhook

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
)

// Verdicts, as metrics and audit annotations name them.
const (
	verdictAllow     = "allow"
	verdictDeny      = "deny"
	verdictWarn      = "warn"
	verdictAudit     = "audit"
	verdictFault     = "fault"
	verdictNotYet    = "not-yet"
	verdictOpen      = "breaker-open"
	verdictUncovered = "uncovered"
)

// answer is what the API server is told. Its makers below are the only ones: a denial never looks like a fault, and
// neither is ever allowed, but for passed.
type answer struct {
	allowed  bool
	verdict  string
	status   status
	patch    []jsonpatch.Operation
	warnings []string

	// What the audit log is told beside the verdict.
	profile, policyHash string
	rules               []string

	// counts are the rules violated, for metrics.
	counts []violated

	// reason of a fault, for metrics and the audit log.
	reason faultReason

	// complaint is what the log is told of a fault that nobody else is told of.
	complaint string

	// proof of a self-delete that is allowed, for the audit log.
	proof *policy.SelfDelete
}

// violated is a rule that was violated and what that led to.
type violated struct{ rule, verdict string }

// status is what we write of a metav1.Status.
type status struct {
	Status  string              `json:"status"`
	Message string              `json:"message"`
	Reason  metav1.StatusReason `json:"reason"`
	Details *statusDetails      `json:"details,omitempty"`
	Code    int                 `json:"code"`
}

type statusDetails struct {
	Name              string  `json:"name,omitempty"`
	Kind              string  `json:"kind,omitempty"`
	RetryAfterSeconds int     `json:"retryAfterSeconds,omitempty"`
	Causes            []cause `json:"causes,omitempty"`
}

// cause is what we write of a metav1.StatusCause.
type cause struct {
	Type    string `json:"reason"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

// faultReason says in metrics why a request could not be judged.
type faultReason string

const (
	faultNotUnderstood faultReason = "not-understood"
	faultUndecodable   faultReason = "undecodable"
	faultFacts         faultReason = "facts"
	faultDeadline      faultReason = "deadline"
	faultPatch         faultReason = "patch"
	faultPanic         faultReason = "panic"
	faultOverload      faultReason = "overload"
	faultBreaker       faultReason = "breaker"
	faultTooMuch       faultReason = "too-much"
)

var faultReasons = []faultReason{
	faultNotUnderstood, faultUndecodable, faultFacts, faultDeadline, faultPatch, faultPanic, faultOverload,
	faultBreaker, faultTooMuch,
}

// patched lets the request pass with changes, or as it is if there are none.
func patched(patch []jsonpatch.Operation, warnings []string) answer {
	return answer{allowed: true, verdict: verdictAllow, patch: patch, warnings: warnings}
}

// uncovered lets a request pass that no profile has anything to say about: the registration is wider than the policy.
func uncovered() answer {
	return answer{allowed: true, verdict: verdictUncovered}
}

// judged is the policy's word: allowed or denied.
func judged(v policy.Verdict) answer {
	a := answer{allowed: v.Allowed(), verdict: verdictAllow, profile: v.Profile}
	for _, w := range v.Warnings {
		a.warnings = append(a.warnings, w.String())
	}
	a.note(verdictDeny, v.Denials)
	a.note(verdictWarn, v.Warnings)
	a.note(verdictAudit, v.Audits)
	if !a.allowed {
		a.verdict = verdictDeny
		a.status = failure(http.StatusForbidden, metav1.StatusReasonForbidden, v.Message())
		a.status.Details = &statusDetails{Causes: causes(v.Denials)}
	}
	return a
}

// note remembers which rules were violated, each once.
func (a *answer) note(verdict string, violations []policy.Violation) {
	for _, violation := range violations {
		if !slices.Contains(a.rules, violation.Rule) {
			a.rules = append(a.rules, violation.Rule)
		}
		if c := (violated{violation.Rule, verdict}); !slices.Contains(a.counts, c) {
			a.counts = append(a.counts, c)
		}
	}
}

// causes are the rules that a denial goes by, each once. The sidecar knows by them that it was judged.
func causes(denials []policy.Violation) []cause {
	var all []cause
	for i := range denials {
		if c := (cause{Type: lifecycle.CauseJudged, Message: denials[i].Rule}); !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	return all
}

// fault refuses a request that could not be judged although it should have been.
func fault(reason faultReason, err error) answer {
	message := "this request could not be judged, so it was not admitted: " + bounded(err.Error(), maxComplaint)
	return answer{
		verdict: verdictFault, reason: reason,
		status: failure(http.StatusInternalServerError, metav1.StatusReasonInternalError, message),
	}
}

// passed lets a request pass as it is where nothing may be held up by a fault.
func passed(reason faultReason, err error) answer {
	return answer{allowed: true, verdict: verdictFault, reason: reason, complaint: bounded(err.Error(), maxComplaint)}
}

// notUnderstood refuses a request of a sort that this server does not judge.
func notUnderstood(err error) answer {
	message := "this request is not understood, so it was not admitted: " + bounded(err.Error(), maxComplaint)
	return answer{
		verdict: verdictFault, reason: faultNotUnderstood,
		status: failure(http.StatusBadRequest, metav1.StatusReasonBadRequest, message),
	}
}

// overloaded refuses a request for want of room. The API server hands status and delay to its client, and client-go,
// so kubectl and every controller, tries again by itself.
func overloaded() answer {
	a := answer{
		verdict: verdictFault, reason: faultOverload,
		status: failure(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests,
			"the admission server has too much to do; try again"),
	}
	a.status.Details = &statusDetails{RetryAfterSeconds: retryAfterSeconds}
	return a
}

const retryAfterSeconds = 1

// tooMuch refuses a request that would take more memory or time than one may.
func tooMuch(err error) answer {
	return answer{
		verdict: verdictFault, reason: faultTooMuch,
		status: failure(http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge,
			"this request is too large to be judged, so it was not admitted: "+bounded(err.Error(), maxComplaint)),
	}
}

// notYet refuses a self-delete that may be allowed a moment later. The sidecar tries again; 409 is what it knows it by.
func notYet(v policy.Verdict) answer {
	a := judged(v)
	a.verdict = verdictNotYet
	a.status = failure(http.StatusConflict, metav1.StatusReasonConflict, "not yet: "+v.Message())
	a.status.Details = &statusDetails{RetryAfterSeconds: retryAfterSeconds}
	return a
}

// breakerOpen refuses a self-delete that nothing speaks against but the number of others.
func breakerOpen(v policy.Verdict, err *breaker.OpenError) answer {
	a := answer{verdict: verdictOpen, profile: v.Profile}
	a.status = failure(http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests, err.Error())
	a.status.Details = &statusDetails{RetryAfterSeconds: breakerRetrySeconds}
	return a
}

// breakerRetrySeconds is when an agent asks again that the open breaker has refused.
const breakerRetrySeconds = 30

func failure(code int, reason metav1.StatusReason, message string) status {
	return status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}
}

// auditAnnotations leave the reasons in the API server's audit log. The API server puts the webhook's name before each
// key.
func (a *answer) auditAnnotations() map[string]string {
	annotations := map[string]string{"verdict": a.verdict}
	if a.profile != "" {
		annotations["profile"] = a.profile
	}
	if a.policyHash != "" {
		annotations["policy"] = a.policyHash
	}
	if len(a.rules) > 0 {
		annotations["rules"] = strings.Join(a.rules, ",")
	}
	if a.reason != "" {
		annotations["fault"] = string(a.reason)
	}
	if a.proof != nil {
		annotations["self-delete"] = describeProof(a.proof)
	}
	return annotations
}

const (
	// maxWarning bounds one warning, maxWarnings all of them, in bytes. The API documentation asks for 120 characters
	// where that is possible; from 256 on, and 4096 in all, the API server cuts. The advice would cost the end of a
	// message, which says what to do.
	maxWarning  = 256
	maxWarnings = 4096
)

// boundedWarnings returns as many warnings as the API server passes on, and says how many are missing.
func boundedWarnings(warnings []string) []string {
	if len(warnings) == 0 {
		return nil
	}
	kept := make([]string, 0, len(warnings))
	room := maxWarnings - maxWarning // the last one may have to say how many were left out
	for i, w := range warnings {
		w = bounded(w, maxWarning)
		if len(w) > room {
			return append(kept, fmt.Sprintf("and %d more warnings", len(warnings)-i))
		}
		room -= len(w)
		kept = append(kept, w)
	}
	return kept
}
