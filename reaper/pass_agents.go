package reaper

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// forgotten is an agent that ended because it was idle, and its Pod.
type forgotten struct {
	*agent
	pod *pod
}

// decideForgotten says whether an agent that ended with 42 goes, and why or why not. Its sidecar has some time to ask for it first;
// where there is none nobody else would. It holds to what the server asks of sidecars: the user type shuts down, and the Pod had lived
// for a while.
func decideForgotten(a *agent, p *pod, now time.Time) (goes bool, reason string) {
	switch {
	case p.ended == nil:
		return false, "it is not dead with 42"
	case p.deleting:
		return false, "its Pod is being deleted"
	case a.tier.Shutdown != v1alpha1.ShutdownWhenIdle:
		return false, "its user type never shuts down"
	case p.ended.lifetime < a.policy.SelfDelete.MinimumLifetime.Duration:
		return false, "its Pod had not lived for long enough to be idle"
	case p.ended.finished.After(now):
		return false, "it ended in the future"
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
		for _, d := range p.workloads {
			if a, is := agentOf(file, d); is {
				result.Examined++
				for _, pod := range p.pods {
					if pod.deployment == a.name && pod.ended != nil {
						all = append(all, forgotten{a, pod})
					}
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

// errKept says that a live read showed another picture than the inventory.
var errKept = errors.New("kept")

func kept(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errKept}, args...)...)
}

// deleteForgotten decides once more, by what the API server says now: that the Pod is the Deployment's, and dead.
func (w *worker) deleteForgotten(ctx context.Context, f forgotten) error {
	d, err := w.client.AppsV1().Deployments(f.namespace).Get(ctx, f.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	a, is := agentOf(w.Policy.File(), recordOf(d).(*workload))
	if !is || a.uid != f.uid {
		return kept("it is another Deployment by now, or on its way out")
	}
	live, err := w.client.CoreV1().Pods(f.namespace).Get(ctx, f.pod.name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	owner := metav1.GetControllerOf(live)
	if owner == nil || owner.Kind != "ReplicaSet" {
		return kept("Pod %s is not controlled by a ReplicaSet", live.Name)
	}
	rs, err := w.client.AppsV1().ReplicaSets(f.namespace).Get(ctx, owner.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if of := metav1.GetControllerOf(rs); rs.UID != owner.UID || of == nil || of.UID != d.UID {
		return kept("Pod %s is not one of Deployment %s", live.Name, d.Name)
	}
	p := podOf(live)
	if goes, reason := decideForgotten(a, p, w.Now()); !goes || p.uid != f.pod.uid {
		return kept("%s", reason)
	}
	if why := protection(d.Annotations, w.Now()); why != "" {
		return kept("%s", why)
	}
	if err := w.Breaker.Take(ctx, string(d.UID)); err != nil {
		return kept("%v", err)
	}
	opts := preconditions(&a.object)
	opts.PropagationPolicy = new(metav1.DeletePropagationForeground)
	return w.client.AppsV1().Deployments(f.namespace).Delete(ctx, f.name, opts)
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
