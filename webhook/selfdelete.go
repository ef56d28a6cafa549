package webhook

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/policy"
)

// deleteOptions reads the options of a DELETE; there need not be any.
func (t *task) deleteOptions() (*metav1.DeleteOptions, error) {
	options := &metav1.DeleteOptions{}
	if !present(t.Options) {
		return options, nil
	}
	if err := json.Unmarshal(t.Options, options); err != nil {
		return nil, fmt.Errorf("options: %w", err)
	}
	return options, nil
}

// answerSelfDelete answers an agent that asks to be deleted and is not refused for good.
func (a *Admission) answerSelfDelete(ctx context.Context, t *task, r *policy.Request, verdict policy.Verdict) answer {
	if !verdict.Allowed() {
		return notYet(verdict)
	}
	if !t.DryRun {
		if err := a.passBreaker(ctx, t, r, verdict.SelfDelete); err != nil {
			if open := new(breaker.OpenError); errors.As(err, &open) {
				return breakerOpen(verdict, open)
			}
			return fault(faultBreaker, err)
		}
	}
	result := judged(verdict)
	result.proof = verdict.SelfDelete
	return result
}

// passBreaker counts a deletion of a Deployment, which takes all the rest along, and hands it to the Announcer. It has to be
// counted before the answer, since the count is what refuses; the Confirmer gives back what does not come about. A claim that
// is deleted by itself counts for nothing, but waits like all others while the breaker is open.
func (a *Admission) passBreaker(ctx context.Context, t *task, r *policy.Request, proof *policy.SelfDelete) error {
	switch {
	case r.Old.Claim != nil:
		return a.Breaker.Closed(ctx)
	case !proof.Charge:
		return nil
	}
	if err := a.Breaker.Take(ctx, string(proof.DeploymentUID)); err != nil {
		return err
	}
	a.Announcer.SelfDelete(ctx, t.Namespace, proof, t.policy.Hash)
	return nil
}

// Answers to agents that ask to be deleted, as the metric names them.
const (
	selfDeleteAccepted = "accepted"
	selfDeleteNotYet   = "not-yet"
	selfDeleteRefused  = "refused"
	selfDeleteOpen     = "breaker-open"
)

// countSelfDelete counts the answers to agents that ask to be deleted, and not those to the gateway. An acceptance is
// none yet: the API server may ask about one deletion more than once, since the Deployment changes when its Pod ends,
// and the sidecar asks another server where an answer is lost. Events counts it when the deletion has begun.
func (m *Metrics) countSelfDelete(a *answer) {
	switch {
	case a.proof != nil:
	case a.verdict == verdictNotYet:
		m.selfDeletes.WithLabelValues(selfDeleteNotYet).Inc()
	case a.verdict == verdictOpen:
		m.selfDeletes.WithLabelValues(selfDeleteOpen).Inc()
	case a.verdict == verdictDeny && slices.Contains(a.rules, selfDeleteRule):
		m.selfDeletes.WithLabelValues(selfDeleteRefused).Inc()
	}
}

// selfDeleted counts an agent whose deletion has begun.
func (m *Metrics) selfDeleted() { m.selfDeletes.WithLabelValues(selfDeleteAccepted).Inc() }

// selfDeleteRule is the id of the policy's rule.
const selfDeleteRule = "self-delete"

// describeProof is one line for the audit log and the Event.
func describeProof(s *policy.SelfDelete) string {
	return fmt.Sprintf("Deployment %s (%s) of user type %s: container %s (%s) of Pod %s (%s) ended with exit code %d at %s, started at %s",
		s.Deployment, s.DeploymentUID, s.UserType, s.Container, s.ContainerID, s.Pod, s.PodUID, s.ExitCode,
		s.FinishedAt.UTC().Format(time.RFC3339), s.StartedAt.UTC().Format(time.RFC3339))
}
