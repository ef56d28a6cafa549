package reaper

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// forgotten is an agent that ended because it was idle, and its Pod.
type forgotten struct {
	*agent
	pod *pod
}

// decideForgotten says whether an agent that ended with 42 goes, and why or why not. Its sidecar has some time to ask for it first;
// where there is none nobody else would. It holds to what the server asks of sidecars: the user type shuts down, and the agent had run
// for a while.
func decideForgotten(a *agent, p *pod, now time.Time) (goes bool, reason string) {
	switch {
	case p.ended == nil:
		return false, "it is not dead with 42"
	case p.deleting:
		return false, "its Pod is being deleted"
	case a.tier.Shutdown != v1alpha1.ShutdownWhenIdle:
		return false, "its user type never shuts down"
	case lifecycle.Protection(a.protected, now) != "":
		return false, "it is protected"
	case p.ended.lifetime < a.policy.SelfDelete.MinimumLifetime.Duration:
		return false, "it had not run for long enough to be idle"
	case p.ended.finished.After(now):
		return false, "it ended in the future"
	case p.ended.restarted && now.Sub(p.ended.finished) > a.policy.SelfDelete.ProofWindow.Duration:
		return false, "it was started again, and its exit is too long ago to count"
	case p.ended.sidecar && now.Sub(p.ended.finished) < a.policy.Reaper.Agents.After.Duration:
		return false, "its sidecar has some time to do it"
	}
	return true, "ended with 42 at " + p.ended.finished.UTC().Format(time.RFC3339) + ", and nobody deleted it"
}

// passAgents deletes agents that ended because they were idle and are still there.
func (w *worker) passAgents(ctx context.Context) Result {
	file := w.Policy.File()
	mode := w.mode(file.Reaper.Agents.Mode)
	result := Result{Reaper: "agents", Mode: string(mode)}
	if mode == v1alpha1.ReaperOff {
		return result
	}
	now := w.Now()
	var all []forgotten
	w.inventory.each(func(p *place) {
		ended := map[string][]*pod{}
		for _, pod := range p.pods {
			if pod.ended != nil {
				ended[pod.deployment] = append(ended[pod.deployment], pod)
			}
		}
		for _, d := range p.workloads {
			if a, is := agentOf(file, d); is {
				result.Examined++
				for _, pod := range ended[a.name] {
					all = append(all, forgotten{a, pod})
				}
			}
		}
	})
	var candidates []forgotten
	for _, f := range all {
		goes, reason := decideForgotten(f.agent, f.pod, now)
		if goes {
			candidates = append(candidates, f)
		} else {
			result.keep(reason)
		}
	}
	w.reapEach(ctx, &result, mode, len(candidates), func(i int) (Decision, func(context.Context) error) {
		f := candidates[i]
		_, reason := decideForgotten(f.agent, f.pod, now)
		return Decision{Kind: "Deployment", Namespace: f.namespace, Name: f.name, Reason: reason, uid: f.uid},
			func(ctx context.Context) error { return w.deleteForgotten(ctx, f) }
	})
	return result
}

// setOf returns the ReplicaSet of a Pod, if that is one of the Deployment: a label says nothing, since whoever makes a Pod writes it.
func (w *worker) setOf(ctx context.Context, p *corev1.Pod, deployment types.UID) (*appsv1.ReplicaSet, error) {
	owner := metav1.GetControllerOf(p)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return nil, kept("Pod %s is not controlled by a ReplicaSet", p.Name)
	}
	rs, err := w.client.AppsV1().ReplicaSets(p.Namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if of := metav1.GetControllerOf(rs); rs.UID != owner.UID || of == nil || of.UID != deployment {
		return nil, kept("Pod %s is not one of the agent's Deployment", p.Name)
	}
	return rs, nil
}

// errKept says that a live read showed another picture than the inventory.
var errKept = errors.New("kept")

func kept(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errKept}, args...)...)
}

// deleteForgotten decides once more, by what the API server says now: that the Pod is the Deployment's and dead, and that nobody has
// asked for another one.
func (w *worker) deleteForgotten(ctx context.Context, f forgotten) error {
	d, err := w.client.AppsV1().Deployments(f.namespace).Get(ctx, f.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	a, is := agentOf(w.Policy.File(), recordOf(d).(*workload))
	switch {
	case !is || a.uid != f.uid:
		return kept("it is another Deployment by now, or on its way out")
	case d.Generation != d.Status.ObservedGeneration:
		return kept("it has just been changed, and what was applied must not be lost to an exit before it")
	}
	p, err := w.onlyPod(ctx, f)
	if err != nil {
		return err
	}
	rs, err := w.setOf(ctx, p, d.UID)
	switch {
	case err != nil:
		return err
	case !wantsReplicas(rs.Spec.Replicas):
		return kept("Pod %s is being replaced, and the next one is not idle yet", p.Name)
	}
	if goes, reason := decideForgotten(a, podOf(p), w.Now()); !goes {
		return kept("%s", reason)
	}
	if err := w.Breaker.Take(ctx, string(d.UID)); err != nil {
		return &HeldError{err}
	}
	opts := preconditions(&a.object)
	opts.PropagationPolicy = new(metav1.DeletePropagationForeground)
	return w.client.AppsV1().Deployments(f.namespace).Delete(withToken(ctx), f.name, opts)
}

// onlyPod returns the Pod of a forgotten agent, if no other one of its agent is there that may work.
func (w *worker) onlyPod(ctx context.Context, f forgotten) (*corev1.Pod, error) {
	pods, err := w.client.CoreV1().Pods(f.namespace).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + f.name})
	if err != nil {
		return nil, err
	}
	var its *corev1.Pod
	for i := range pods.Items {
		p := &pods.Items[i]
		if p.UID == f.pod.uid {
			its = p
		} else if now := podOf(p); now.live && now.ended == nil {
			return nil, kept("Pod %s of its agent may work", p.Name)
		}
	}
	if its == nil {
		return nil, kept("Pod %s has gone", f.pod.name)
	}
	return its, nil
}

// reapEach deletes candidates, some at a time, unless they are too many or the mode says not to. describe returns what is said of one
// and how it is deleted.
func (w *worker) reapEach(ctx context.Context, result *Result, mode v1alpha1.ReaperMode, n int,
	describe func(int) (Decision, func(context.Context) error),
) {
	result.Candidates = n
	if result.Cap == 0 {
		result.Cap = allowed(&w.settings().Cap, result.Examined)
	}
	result.CapExceeded = n > result.Cap
	if result.CapExceeded {
		w.capExceeded(ctx, result)
	}
	if result.CapExceeded || mode != v1alpha1.ReaperDelete {
		for i := range n {
			d, _ := describe(i)
			d.Verdict = "would be deleted"
			w.say(ctx, result, d, false)
		}
		return
	}
	w.deleteEach(ctx, result, n, describe)
}

// gone says whether an error of a deletion means that somebody else was faster.
func gone(err error) bool { return apierrors.IsNotFound(err) }
