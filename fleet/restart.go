package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	fieldManager = "kubectl-agents"

	// attempts is how often an agent is looked at anew that somebody else changes meanwhile.
	attempts = 4
)

// one looks after one agent. It returns nil for one with nothing to do.
func (r *Roll) one(ctx context.Context, t target, working bool) (*Step, error) {
	for conflicts := 0; conflicts < attempts; {
		d, err := r.Cluster.deployment(ctx, t)
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil // it has gone since, and needs nothing any more
		case err != nil:
			return nil, err
		}
		needs := r.needs(d)
		switch needs {
		case nothing:
			return nil, nil
		case patience:
			if r.DryRun {
				return nil, nil
			}
			return r.await(ctx, d, nil, underWay(d, r.ReadyWithin, r.Now()))
		case help:
			return r.leftUnready(ctx, d), nil
		}
		reason := r.Mode.hindrance(d)
		if reason != "" && needs != activityKey {
			return &Step{Outcome: LeftOut, Reason: reason}, nil
		}
		// Who would be refused is told so whatever he does.
		when := renewalTime(r.Now())
		would, step, err := r.would(ctx, d, when)
		if step != nil || err != nil || would == nil {
			return step, err
		}
		if reason != "" { // only the server can tell that there is a key for it
			return &Step{Outcome: LeftOut, Reason: reason}, nil
		}
		if step, err := r.look(ctx, d, working); step != nil || err != nil {
			return step, err
		}
		if r.DryRun {
			return &Step{Outcome: Would, Changes: Changes(d, would)}, nil
		}
		// Waiting takes its time, after which everything is looked at anew.
		if waited, err := r.turn(ctx); waited || err != nil {
			if err != nil {
				return nil, err
			}
			continue
		}
		// What counts is what the agent does right now. Whatever was changed of the Deployment since it was read makes the
		// write a conflict.
		if step, err := r.look(ctx, d, working); step != nil || err != nil {
			return step, err
		}
		if !r.take() {
			continue
		}
		written, err := r.patch(context.WithoutCancel(ctx), d, when, metav1.PatchOptions{})
		switch {
		case apierrors.IsConflict(err):
			conflicts++
			continue
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return r.refusal(ctx, t.namespace, err)
		}
		// Of several servers another one may have answered than before.
		if _, changes := r.judge().Renewed(t.namespace, written); changes {
			return nil, fmt.Errorf("%w: it was restarted with what a server injects that has not taken the policy up yet, which takes a minute or two", ErrNotInjected)
		}
		return r.await(context.WithoutCancel(ctx), written, Changes(d, written), r.ReadyWithin)
	}
	return &Step{Outcome: LeftOut, Reason: "somebody else keeps changing it"}, nil
}

// look says why the agent may not be restarted; nil if it may.
func (r *Roll) look(ctx context.Context, d *appsv1.Deployment, working bool) (*Step, error) {
	seen, err := r.Cluster.look(ctx, d, r.IdleFor, r.Now)
	if err != nil {
		return nil, err
	}
	ok, reason := mayRestart(seen, working)
	switch {
	case ok:
		return nil, nil
	case seen.Work == Working && r.Working:
		return &Step{Outcome: putOff}, nil
	}
	return &Step{Outcome: LeftOut, Reason: reason}, nil
}

// would asks the API server what would become of the Deployment. It returns nothing if that is what it is already.
func (r *Roll) would(ctx context.Context, d *appsv1.Deployment, when string) (*appsv1.Deployment, *Step, error) {
	would, err := r.patch(ctx, d, when, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case apierrors.IsConflict(err):
		return nil, &Step{Outcome: LeftOut, Reason: "somebody else has just changed it"}, nil
	case apierrors.IsNotFound(err):
		return nil, nil, nil
	case err != nil:
		step, err := r.refusal(ctx, d.Namespace, err)
		return nil, step, err
	}
	if err := r.injected(would); err != nil {
		return nil, nil, err
	}
	if !Adopted(would) {
		return nil, &Step{Outcome: Refused, Reason: fmt.Sprintf("it cannot be an agent of the system: the label %s cannot hold its name, which has "+
			"%d characters; accepted are at most %d", lifecycle.LabelDeployment, len(d.Name), validation.LabelValueMaxLength)}, nil
	}
	if sameTemplate(d, would) {
		return nil, nil, nil
	}
	step, err := r.nextPod(ctx, would)
	return would, step, err
}

// injected says whether a server has injected what the policy in force says. An API server whose feature gate drops restart rules may
// look like one that has not.
func (r *Roll) injected(would *appsv1.Deployment) error {
	if _, changes := r.judge().Renewed(would.Namespace, would); !changes {
		return nil
	}
	if _, changes := r.Judge.withoutRestartRules().Renewed(would.Namespace, would); !changes {
		r.sawRulesDropped()
		return nil
	}
	return fmt.Errorf("%w: it would have the sidecar %q, the policy says %q; either a server has not taken the policy up yet, which takes a "+
		"minute or two, or the registrations do not cover the namespace", ErrNotInjected, imageOf(policy.SidecarOf(would)), r.Judge.SidecarImage())
}

// nextPod returns a step if what a Deployment would be could not come up.
func (r *Roll) nextPod(ctx context.Context, would *appsv1.Deployment) (*Step, error) {
	if replicasOf(would) == 0 {
		return nil, nil
	}
	n, err := r.Cluster.namespace(ctx, would.Namespace)
	if err != nil {
		return nil, err
	}
	// Whose claims it mounts the server has just judged, so it is enough to know of each that it is there.
	claims, err := r.Cluster.claimsOf(ctx, would)
	if err != nil {
		return nil, err
	}
	next := r.Judge.Return(would.Namespace, n.Labels, workload.FromDeployment(would), would, chainOf("Deployment"), claims)
	if next.Allowed() {
		return nil, nil
	}
	var lines []string
	for _, v := range next.Denials {
		lines = append(lines, v.String())
	}
	return &Step{Outcome: Refused, Reason: "its next Pod would not come up: " + strings.Join(lines, "; ")}, nil
}

// refusal tells what is refused of this agent, by whomever, from what went wrong for all.
func (r *Roll) refusal(ctx context.Context, namespace string, err error) (*Step, error) {
	if !isRefusal(err) {
		return nil, err
	}
	if apierrors.IsForbidden(err) {
		allowed, why := r.Cluster.mayPatch(ctx, namespace)
		if why != nil {
			return nil, why
		}
		if !allowed {
			return nil, err
		}
	}
	return &Step{Outcome: Refused, Reason: err.Error()}, nil
}

// patch asks for today's parts. Repeated after an answer that was lost it is a conflict.
func (r *Roll) patch(ctx context.Context, d *appsv1.Deployment, when string, opts metav1.PatchOptions) (*appsv1.Deployment, error) {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": d.UID, "resourceVersion": d.ResourceVersion},
		"spec": map[string]any{"template": map[string]any{"metadata": map[string]any{
			"annotations": map[string]string{lifecycle.AnnotationRenewedAt: when},
		}}},
	})
	if err != nil {
		return nil, err
	}
	opts.FieldManager = fieldManager
	var stored *appsv1.Deployment
	err = patiently(ctx, func(ctx context.Context) (err error) {
		stored, err = r.Cluster.client.AppsV1().Deployments(d.Namespace).Patch(ctx, d.Name, types.MergePatchType, patch, opts)
		return err
	})
	return stored, err
}
