package webhook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/policy"
)

const (
	// maxHold is how long a self-delete waits for the kubelet to report the exit: longer than that usually takes, and well
	// within the API server's patience.
	maxHold = 2 * time.Second

	// maxHeld is how many of them wait at a time. They take up half of DefaultMaxInFlight at most: agents that go must not
	// keep others from being created.
	maxHeld = 64
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

// hold waits for what the kubelet will say of the caller's Pod, and judges by that. The sidecar knows of the exit within
// milliseconds, the Pod's status within two seconds: waiting here costs one request, asking again and again would cost many.
// Where too many wait already, the answer is the one that was there: not yet.
func (a *Admission) hold(ctx context.Context, p Policy, r *policy.Request, verdict policy.Verdict) (policy.Verdict, error) {
	defer a.held.Add(-1)
	if a.held.Add(1) > maxHeld {
		return verdict, nil
	}
	a.Metrics.held.Inc()
	defer a.Metrics.held.Dec()
	start := time.Now()
	defer func() { a.Metrics.heldFor.Observe(time.Since(start).Seconds()) }()
	ctx, cancel := context.WithTimeout(ctx, maxHold)
	defer cancel()
	err := a.Callers.WatchCaller(ctx, r, func(facts *policy.Facts) bool {
		r.Facts = facts
		verdict = p.Review(r)
		return verdict.Wait() != policy.WaitForExit
	})
	if err != nil && ctx.Err() == nil {
		return policy.Verdict{}, err
	}
	return verdict, nil // when time is up, as it stands
}

// answerSelfDelete answers an agent that asks to be deleted and is not refused for good.
func (a *Admission) answerSelfDelete(ctx context.Context, t *task, verdict policy.Verdict) answer {
	if !verdict.Allowed() {
		return notYet(verdict)
	}
	proof := verdict.SelfDelete
	result := judged(verdict)
	result.proof = proof
	if t.DryRun || !proof.Charge {
		return result
	}
	if err := a.Breaker.Take(ctx); err != nil {
		if open := new(breaker.OpenError); errors.As(err, &open) {
			return breakerOpen(verdict, open)
		}
		return fault(faultBreaker, err)
	}
	a.Announcer.SelfDelete(ctx, t.Namespace, proof, t.policy.Hash)
	return result
}

// countSelfDelete counts the answers to agents that want to delete something.
func (m *Metrics) countSelfDelete(a *answer) {
	switch a.verdict {
	case verdictAllow, verdictDeny, verdictNotYet, verdictOpen:
		m.selfDeletes.WithLabelValues(a.verdict).Inc()
	}
}

// describeProof is one line for the audit log and the Event.
func describeProof(s *policy.SelfDelete) string {
	return fmt.Sprintf("Deployment %s (%s) of user type %s: container %s (%s) of Pod %s (%s) ended with exit code %d at %s, started at %s",
		s.Deployment, s.DeploymentUID, s.UserType, s.Container, s.ContainerID, s.Pod, s.PodUID, s.ExitCode,
		s.FinishedAt.UTC().Format(time.RFC3339), s.StartedAt.UTC().Format(time.RFC3339))
}
