package reaper

import (
	"context"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Pauses between two tries at an agent that failed.
const (
	shortestAgentRetry = 100 * time.Millisecond
	longestAgentRetry  = time.Minute
)

// agentQueue brings what belongs to an agent to what it should be: for every change of a Deployment, its claims, its Services and its
// Pods, it looks at the agent again.
type agentQueue struct {
	*worker
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]

	// heeded is what the circuit breaker said last.
	heeded heeded

	pausing sync.Mutex
	pauses  pauses
	denied  map[string]bool
}

func newAgentQueue(w *worker) *agentQueue {
	return &agentQueue{
		worker: w, pauses: pauses{}, denied: map[string]bool{},
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](shortestAgentRetry, longestAgentRetry)),
	}
}

// changed has the agent looked at to which an object belongs. It is called with the inventory locked.
func (q *agentQueue) changed(r record) {
	name := ""
	switch r := r.(type) {
	case *pod:
		if r.ended != nil { // nothing else about a Pod matters
			name = r.deployment
		}
	case *workload:
		if isAgent(r) {
			name = r.name
		}
	case *claim:
		name = r.labels[lifecycle.LabelDeployment]
	case *service:
		name = r.labels[lifecycle.LabelDeployment]
	}
	if name != "" {
		q.queue.Add(types.NamespacedName{Namespace: r.id().namespace, Name: name})
	}
}

// work looks at agents until ctx ends, so many at a time.
func (q *agentQueue) work(ctx context.Context, parallelism int) {
	stop := context.AfterFunc(ctx, q.queue.ShutDown)
	defer stop()
	var all sync.WaitGroup
	for range parallelism {
		all.Go(func() {
			for more := true; more; {
				more, _ = q.next(ctx) // which has said what went wrong
			}
		})
	}
	all.Wait()
}

// drain looks at every agent that waits, once. What has to wait longer is for the next run; what could not be done is an error, since
// nobody tries again before that.
func (q *agentQueue) drain(ctx context.Context) error {
	failed, examined := 0, 0
	var first error
	for q.queue.Len() > 0 && ctx.Err() == nil {
		_, err := q.next(ctx)
		examined++
		if err == nil {
			continue
		}
		failed++
		if first == nil {
			first = err
		}
	}
	if first == nil {
		return nil
	}
	return fmt.Errorf("%d of %d agents could not be looked after, the first: %w", failed, examined, first)
}

// next looks at the agent that has waited longest. It returns false when there will be no more.
func (q *agentQueue) next(ctx context.Context) (more bool, err error) {
	name, shutdown := q.queue.Get()
	if shutdown {
		return false, nil
	}
	defer q.queue.Done(name)
	wait, err := q.look(ctx, name)
	switch {
	case err != nil:
		q.queue.AddRateLimited(name)
		if ctx.Err() == nil {
			q.Logger.WarnContext(ctx, "An agent could not be looked after; trying again", "namespace", name.Namespace, "deployment", name.Name, "error", err)
		}
		return true, fmt.Errorf("agent %s: %w", name, err)
	case wait > 0:
		q.queue.AddAfter(name, wait)
	}
	q.queue.Forget(name)
	return true, nil
}

// belongings are an agent and what belongs to it.
type belongings struct {
	*agent
	claims   []*claim
	services []*service
	pods     []*pod
	// mountedBy names the Deployments that mount a claim.
	mountedBy map[string][]string
}

func (q *agentQueue) belongings(name types.NamespacedName) *belongings {
	var b *belongings
	q.inventory.look(name.Namespace, func(p *place) {
		d := p.workloads["Deployment/"+name.Name]
		if d == nil {
			return
		}
		a, is := agentOf(q.Policy.File(), d)
		if !is {
			return
		}
		b = &belongings{agent: a, mountedBy: map[string][]string{}}
		for _, c := range p.claims {
			if c.labels[lifecycle.LabelDeployment] == name.Name {
				b.claims = append(b.claims, c)
				b.mountedBy[c.name] = nil
			}
		}
		for _, s := range p.services {
			if s.labels[lifecycle.LabelDeployment] == name.Name {
				b.services = append(b.services, s)
			}
		}
		for _, pod := range p.pods {
			if pod.deployment == name.Name && pod.ended != nil {
				b.pods = append(b.pods, pod)
			}
		}
		if len(b.claims) == 0 {
			return
		}
		for _, w := range p.workloads {
			for _, c := range w.claims {
				if by, mine := b.mountedBy[c]; mine {
					b.mountedBy[c] = append(by, w.name)
				}
			}
		}
	})
	return b
}

func (q *agentQueue) look(ctx context.Context, name types.NamespacedName) (time.Duration, error) {
	b := q.belongings(name)
	if b == nil {
		return 0, nil
	}
	for _, c := range b.claims {
		if err := q.apply(ctx, b.agent, "persistentvolumeclaims", "PersistentVolumeClaim", &c.dependent, decideClaim(b.agent, &c.dependent, b.mountedBy[c.name], q.Now())); err != nil {
			return 0, q.tolerate(b.agent, err)
		}
	}
	for _, s := range b.services {
		if err := q.apply(ctx, b.agent, "services", "Service", &s.dependent, decideService(b.agent, &s.dependent)); err != nil {
			return 0, q.tolerate(b.agent, err)
		}
	}
	wait, err := q.freshPod(ctx, b)
	return wait, q.tolerate(b.agent, err)
}

// tolerate drops errors that trying again would not help: what has gone or changed comes back as a change, and where there are
// no rights, as in the namespaces of role agents that have not granted them, that is said once.
func (q *agentQueue) tolerate(a *agent, err error) error {
	switch {
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return nil
	case !apierrors.IsForbidden(err):
		return err
	}
	q.pausing.Lock()
	defer q.pausing.Unlock()
	if !q.denied[a.namespace] {
		q.denied[a.namespace] = true
		q.Logger.Warn("The reaper may not look after the agents of a namespace", "namespace", a.namespace, "error", err)
	}
	return nil
}

func (q *agentQueue) apply(ctx context.Context, a *agent, resource, kind string, o *dependent, c *change) error {
	if c == nil || !q.mayWrite() {
		return nil
	}
	patch, err := c.patch(o.uid, o.resourceVersion)
	if err != nil {
		return err
	}
	err = q.client.CoreV1().RESTClient().Patch(types.MergePatchType).Namespace(o.namespace).Resource(resource).Name(o.name).Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("%s %s: %w", kind, o.name, err)
	}
	q.Metrics.owned.WithLabelValues(kind).Inc()
	q.Logger.InfoContext(ctx, "Set what becomes of an agent's object", "kind", kind, "namespace", a.namespace, "name", o.name,
		"deployment", a.name, "userType", a.userType, "owned", len(c.owners) > 0)
	return nil
}

// freshPod deletes the Pod of an agent that is dead and kept. It returns when to look again.
func (q *agentQueue) freshPod(ctx context.Context, b *belongings) (time.Duration, error) {
	for _, p := range b.pods {
		f := decidePod(b.agent, p, q.Now())
		if !f.restart {
			if f.wait > 0 {
				return f.wait, nil
			}
			continue
		}
		if !q.mayWrite() {
			return firstPause, nil
		}
		if left := q.pause(b.agent); left > 0 {
			return left, nil
		}
		if err := q.heeded.closed(ctx, q.Breaker, q.Now); err != nil {
			q.Logger.InfoContext(ctx, "A dead agent waits for the circuit breaker", "namespace", b.namespace, "deployment", b.name, "error", err)
			return firstPause, nil
		}
		return q.restart(ctx, b.agent, p)
	}
	return 0, nil
}

func (q *agentQueue) pause(a *agent) time.Duration {
	q.pausing.Lock()
	defer q.pausing.Unlock()
	return q.pauses.left(string(a.uid), q.Now())
}

// restart decides by the Pod as it is now, and deletes it as it is now.
func (q *agentQueue) restart(ctx context.Context, a *agent, p *pod) (time.Duration, error) {
	live, err := q.client.CoreV1().Pods(p.namespace).Get(ctx, p.name, metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	now := podOf(live)
	f := decidePod(a, now, q.Now())
	if now.uid != p.uid || !f.restart {
		return f.wait, nil
	}
	if _, err := q.setOf(ctx, live, a.uid); err != nil {
		q.Logger.DebugContext(ctx, "A dead Pod stays", "namespace", p.namespace, "pod", p.name, "reason", err.Error())
		return 0, nil
	}
	if err := q.client.CoreV1().Pods(p.namespace).Delete(ctx, p.name, preconditions(&now.object)); err != nil {
		return 0, fmt.Errorf("delete Pod %s: %w", p.name, err)
	}
	q.pausing.Lock()
	q.pauses.note(string(a.uid), q.Now())
	q.pausing.Unlock()
	q.Metrics.restarted.Inc()
	q.Logger.InfoContext(ctx, "Gave an agent that had ended with 42 a fresh Pod", "namespace", a.namespace, "deployment", a.name,
		"pod", p.name, "reason", f.reason)
	return 0, nil
}
