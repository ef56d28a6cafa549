package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	fieldManager = "kubectl-agents"

	// pollEvery is how often it is looked whether an agent has come up.
	pollEvery = 500 * time.Millisecond

	// attempts is how often an agent is looked at anew that somebody else changes meanwhile.
	attempts = 4
)

// Outcome is what became of an agent.
type Outcome string

// The values of Outcome.
const (
	Renewed  Outcome = "done"
	Would    Outcome = "would be done"
	Refused  Outcome = "refused"
	LeftOut  Outcome = "left out"
	Failed   Outcome = "failed"
	Vanished Outcome = "gone"
)

// Step is what was done to one agent.
type Step struct {
	Namespace, Name string
	Outcome         Outcome

	// Reason says why, and what to do. Changes are what was or would be changed.
	Reason  string
	Changes []string
}

// Roll restarts agents with what is injected today, one after the other. What happens to each is decided by what the API server says in
// a dry run, so by the webhook itself.
//
// It is safe to stop at any time, and to run again: an agent is restarted by one write, which is refused if anything has changed since
// the agent was last seen idle, and who has today's parts is not looked at again.
type Roll struct {
	Cluster *Cluster
	Judge   *Judge
	Mode    Mode

	// Namespace and Selector narrow it down; empty: all.
	Namespace, Selector string

	// Every is the least time between two restarts, ReadyWithin how long an agent may take to come up.
	Every, ReadyWithin time.Duration

	// IdleFor is how long ago the last activity of an agent must be that nothing keeps alive. Working agents are restarted, too, where
	// that is said; after the others.
	IdleFor time.Duration
	Working bool

	DryRun bool
	Now    func() time.Time

	// Say is told of each agent.
	Say func(Step)

	last time.Time
}

// ErrNotInjected says that the API server does not do to agents what the policy says.
var ErrNotInjected = errors.New("the webhook does not inject what the policy in force says")

// errStopped ends a run at the first agent that does not come up.
var errStopped = errors.New("stopped")

// Tally counts what became of agents.
type Tally map[Outcome]int

// Run goes through all agents. It ends early without an error at the first one that fails, and with that of ctx when that ends; the agent
// that is restarted then is waited for.
func (r *Roll) Run(ctx context.Context) (Tally, error) {
	tally := Tally{}
	say := func(s Step) {
		tally[s.Outcome]++
		r.Say(s)
	}
	namespaces, err := r.Cluster.Namespaces(ctx, r.Namespace, r.Judge.Covers)
	if err != nil {
		return tally, err
	}
	later := map[string][]string{}
	for _, n := range namespaces {
		var names []string
		err := r.Cluster.eachDeployment(ctx, n.Name, r.Selector, func(d *appsv1.Deployment) error {
			if _, changes := r.Judge.Renewed(n.Name, d); r.Mode.concerned(d) && changes || underWay(d, r.ReadyWithin, r.Now()) > 0 {
				names = append(names, d.Name)
			}
			return nil
		})
		if err != nil {
			return tally, err
		}
		if later[n.Name], err = r.each(ctx, n, names, false, say); err != nil {
			return tally, ended(err)
		}
	}
	for _, n := range namespaces {
		if _, err := r.each(ctx, n, later[n.Name], true, say); err != nil {
			return tally, ended(err)
		}
	}
	return tally, nil
}

func ended(err error) error {
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}

// each goes through agents of one namespace. Those that work are put off where they are to be restarted last.
func (r *Roll) each(ctx context.Context, n Namespace, names []string, working bool, say func(Step)) (later []string, err error) {
	if len(names) == 0 {
		return nil, nil
	}
	var claims map[string]policy.Claim
	if r.Judge.NeedsClaims(n.Name) {
		if claims, err = r.Cluster.claimFacts(ctx, n.Name); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return later, err
		}
		step, err := r.one(ctx, n, name, working, claims)
		if err != nil {
			return later, err
		}
		switch {
		case step == nil:
		case step.Outcome == LeftOut && step.Reason == putOff:
			later = append(later, name)
		default:
			step.Namespace, step.Name = n.Name, name
			say(*step)
			if step.Outcome == Failed {
				return later, errStopped
			}
		}
	}
	return later, nil
}

// putOff is the reason of agents whose turn comes later, which nobody is told.
const putOff = "later"

// one looks after one agent. It returns nil for one with nothing to do.
func (r *Roll) one(ctx context.Context, n Namespace, name string, working bool, claims map[string]policy.Claim) (*Step, error) {
	api := r.Cluster.client.AppsV1().Deployments(n.Name)
	for range attempts {
		d, err := api.Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return nil, nil // it has gone since, and needs nothing any more
		case err != nil:
			return nil, err
		}
		_, changes := r.Judge.Renewed(n.Name, d)
		switch left := underWay(d, r.ReadyWithin, r.Now()); {
		case !changes && left > 0 && !r.DryRun:
			return r.await(ctx, d, nil, left)
		case !changes || !r.Mode.concerned(d):
			return nil, nil
		}
		if reason := r.Mode.hindrance(d); reason != "" {
			return &Step{Outcome: LeftOut, Reason: reason}, nil
		}
		// Who would be refused is told so whatever he does.
		when := renewalTime(r.Now())
		would, step, err := r.would(ctx, n, d, when, claims)
		if step != nil || err != nil || would == nil {
			return step, err
		}
		if step, err := r.look(ctx, d, working); step != nil || err != nil {
			return step, err
		}
		words := Changes(d, would)
		if r.DryRun {
			return &Step{Outcome: Would, Changes: words}, nil
		}
		if err := r.pace(ctx); err != nil {
			return nil, err
		}
		// Waiting took its time: what counts is what the agent does right now. Whatever was changed of the
		// Deployment since it was read makes the write a conflict.
		if step, err := r.look(ctx, d, working); step != nil || err != nil {
			return step, err
		}
		written, err := r.write(context.WithoutCancel(ctx), d, when)
		switch {
		case apierrors.IsConflict(err):
			continue
		case apierrors.IsNotFound(err):
			return nil, nil
		case err != nil:
			return r.refusal(err)
		}
		r.last = r.Now()
		return r.await(context.WithoutCancel(ctx), written, words, r.ReadyWithin)
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
		return &Step{Outcome: LeftOut, Reason: putOff}, nil
	}
	return &Step{Outcome: LeftOut, Reason: reason}, nil
}

// would asks the API server what would become of the Deployment. It returns nothing if that is what it is already.
func (r *Roll) would(ctx context.Context, n Namespace, d *appsv1.Deployment, when string, claims map[string]policy.Claim,
) (*appsv1.Deployment, *Step, error) {
	would, err := r.patch(ctx, d, when, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case apierrors.IsConflict(err):
		return nil, &Step{Outcome: LeftOut, Reason: "somebody else has just changed it"}, nil
	case err != nil:
		step, err := r.refusal(err)
		return nil, step, err
	}
	if image := imageOf(policy.SidecarOf(would)); image != r.Judge.SidecarImage() || !Adopted(would) {
		return nil, nil, fmt.Errorf("%w: Deployment %q of namespace %q would have the sidecar %q, want %q; either a server has not taken the "+
			"policy up yet, which takes a minute or two, or the registrations do not cover the namespace", ErrNotInjected, d.Name, n.Name, image, r.Judge.SidecarImage())
	}
	if sameTemplate(d, would) {
		return nil, nil, nil
	}
	if replicasOf(d) > 0 {
		next := r.Judge.Return(n.Name, n.Labels, workload.FromDeployment(would), would, chainOf("Deployment"), claims)
		if !next.Allowed() {
			var lines []string
			for _, f := range findings(next.Denials) {
				lines = append(lines, f.String())
			}
			return nil, &Step{Outcome: Refused, Reason: "its next Pod would not come up: " + strings.Join(lines, "; ")}, nil
		}
	}
	return would, nil, nil
}

// refusal tells what the API server refuses for good from what went wrong.
func (r *Roll) refusal(err error) (*Step, error) {
	if apierrors.IsForbidden(err) && strings.Contains(err.Error(), "denied the request") || apierrors.IsInvalid(err) {
		return &Step{Outcome: Refused, Reason: err.Error()}, nil
	}
	return nil, err
}

func (r *Roll) write(ctx context.Context, d *appsv1.Deployment, when string) (*appsv1.Deployment, error) {
	return r.patch(ctx, d, when, metav1.PatchOptions{})
}

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
	return r.Cluster.client.AppsV1().Deployments(d.Namespace).Patch(ctx, d.Name, types.MergePatchType, patch, opts)
}

// pace waits until the next agent may be restarted.
func (r *Roll) pace(ctx context.Context) error {
	if r.last.IsZero() {
		return nil
	}
	return sleep(ctx, r.last.Add(r.Every).Sub(r.Now()))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// await waits until an agent that was restarted is ready. That it has gone meanwhile is well: it was idle.
func (r *Roll) await(ctx context.Context, d *appsv1.Deployment, changes []string, within time.Duration) (*Step, error) {
	deadline := r.Now().Add(within)
	api := r.Cluster.client.AppsV1().Deployments(d.Namespace)
	var last error
	for {
		now, err := api.Get(ctx, d.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && (now.UID != d.UID || now.DeletionTimestamp != nil):
			return &Step{Outcome: Vanished, Changes: changes, Reason: "it was idle, and has been deleted since"}, nil
		case err != nil:
			last = err // for a while the API server may be away
		case settled(now):
			return &Step{Outcome: Renewed, Changes: changes}, nil
		default:
			d, last = now, nil
		}
		if !r.Now().Before(deadline) {
			break
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
	if last != nil {
		return nil, last
	}
	reason := fmt.Sprintf("it was restarted and is not ready after %s: %s. %s", r.ReadyWithin, r.symptoms(ctx, d), r.undo(d))
	return &Step{Outcome: Failed, Changes: changes, Reason: reason}, nil
}

// symptoms is what Kubernetes says of an agent that does not come up.
func (r *Roll) symptoms(ctx context.Context, d *appsv1.Deployment) string {
	var all []string
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			all = append(all, c.Message)
		}
	}
	pods, err := r.Cluster.podsOf(ctx, d)
	if err != nil {
		return err.Error()
	}
	for i := range pods {
		all = append(all, podSymptoms(&pods[i])...)
	}
	if len(all) == 0 {
		return fmt.Sprintf("%d of %d replicas are ready", d.Status.ReadyReplicas, replicasOf(d))
	}
	return strings.Join(slices.Compact(all), "; ")
}

func podSymptoms(pod *corev1.Pod) []string {
	if pod.DeletionTimestamp != nil {
		return []string{fmt.Sprintf("Pod %s is still going", pod.Name)}
	}
	var all []string
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			all = append(all, fmt.Sprintf("Pod %s is not scheduled: %s", pod.Name, c.Message))
		}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch last := s.LastTerminationState.Terminated; {
		case s.State.Waiting != nil && last != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s: %s, ended before with exit code %d", pod.Name, s.Name, s.State.Waiting.Reason, last.ExitCode))
		case s.State.Waiting != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s: %s %s", pod.Name, s.Name, s.State.Waiting.Reason, s.State.Waiting.Message))
		case s.State.Terminated != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s ended with exit code %d", pod.Name, s.Name, s.State.Terminated.ExitCode))
		case s.State.Running != nil && !s.Ready:
			all = append(all, fmt.Sprintf("Pod %s: container %s runs and is not ready", pod.Name, s.Name))
		}
	}
	if len(all) == 0 {
		all = append(all, fmt.Sprintf("Pod %s is %s", pod.Name, pod.Status.Phase))
	}
	return all
}

// undo says how to get the agent back to work. A rollout undo would not: the webhook puts back what is injected.
func (r *Roll) undo(d *appsv1.Deployment) string {
	if r.Mode == Upgrade {
		return "To undo it, name the sidecar of before in the policy and run this again for the agent: see Upgrade in docs/install.md"
	}
	return fmt.Sprintf("To undo it, say in the manifest of %q what was filled in, and apply that: see Where agents run already in docs/install.md", d.Name)
}
