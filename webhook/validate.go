package webhook

import (
	"context"
	"errors"

	"gomodules.xyz/jsonpatch/v2"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/policy"
)

// validate answers with the policy's verdict.
func (a *Admission) validate(ctx context.Context, t *task) answer {
	object, old, err := t.objects()
	if err != nil {
		return fault(faultUndecodable, err)
	}
	r := &policy.Request{
		Operation: t.Operation, Namespace: t.Namespace, Name: t.Name, Subresource: t.SubResource,
		User: t.UserInfo, Object: object, Old: old,
	}
	if a.RuleTimes != nil {
		r.RuleTimes = a.RuleTimes.RuleTimes(t.profile)
	}
	if t.Operation == admissionv1.Delete {
		if r.Deletion, err = t.deleteOptions(); err != nil {
			return fault(faultUndecodable, err)
		}
	} else if r.Name == "" {
		r.Name = object.Meta.Name // still empty with generateName
	}
	verdict, err := a.review(ctx, t.policy, r)
	if err == nil && verdict.Wait() == policy.WaitForExit {
		verdict, err = a.hold(ctx, t.policy, r, verdict)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return fault(faultDeadline, errors.Join(errors.New("there was not enough time to look at the cluster"), err))
	default:
		return fault(faultFacts, err)
	}
	if verdict.Allowed() && !t.DryRun {
		a.observeRestartRules(t, r)
	}
	if verdict.SelfDelete != nil || verdict.Wait() != policy.WaitForNothing {
		return a.answerSelfDelete(ctx, t, r, verdict)
	}
	return judged(verdict)
}

// review judges r by facts from memory. Those may be a moment old, and what was true a moment ago must not refuse
// anything: a denial is judged again by fresh facts. One that waits for the exit was judged by a live read of the Pod.
func (a *Admission) review(ctx context.Context, p Policy, r *policy.Request) (policy.Verdict, error) {
	needs := p.Needs(r)
	if needs.None() {
		r.Facts = &policy.Facts{}
		return p.Review(r), nil
	}
	var verdict policy.Verdict
	for _, fresh := range []bool{false, true} {
		facts, err := a.Facts.Facts(ctx, r, needs, fresh)
		if err != nil {
			return policy.Verdict{}, err
		}
		r.Facts = facts
		if verdict = p.Review(r); verdict.Allowed() || verdict.Wait() == policy.WaitForExit {
			break
		}
	}
	return verdict, nil
}

// observeRestartRules shows a new Deployment to the keeper of restart rules.
func (a *Admission) observeRestartRules(t *task, r *policy.Request) {
	if r.Old != nil || r.Object == nil || r.Object.Deployment == nil {
		return
	}
	active, namespace := t.policy, t.Namespace // The request itself, which may be large, must not be kept for later.
	a.RestartRules.Observe(namespace, r.Object.Deployment, func(d *appsv1.Deployment) []jsonpatch.Operation {
		patch, _ := active.Inject(namespace, d.DeepCopy(), nil, inject.Options{RestartRules: true})
		return patch
	})
}
