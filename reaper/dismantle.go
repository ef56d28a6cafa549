package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/workqueue"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Archiver keeps the objects and volumes of a namespace that goes. Package archive has it.
type Archiver interface {
	// Save returns nil when everything is safely kept for that long. It may be called again.
	Save(ctx context.Context, namespace *corev1.Namespace, keep time.Duration, secrets bool) error

	// Release lets go of what has been kept for long enough.
	Release(ctx context.Context) error
}

// Pauses between two looks at a namespace that is being taken apart. They double with every look.
const (
	shortestRetry = 500 * time.Millisecond
	longestRetry  = time.Minute
)

// manyRetries is from when on a namespace that does not get further is reported: after some minutes.
const manyRetries = 10

// dismantler takes namespaces apart: workloads first, then claims, for whose end it waits, then the namespace itself. What has been
// done is seen in the cluster alone, so that it goes on wherever another one was killed.
type dismantler struct {
	*worker
	queue workqueue.TypedRateLimitingInterface[string]

	approval sync.Mutex
	approved map[string]bool
	reaped   int
	// ungranted are the namespaces of which it was said that they lack a RoleBinding.
	ungranted map[string]bool
}

func newDismantler(w *worker) dismantler {
	return dismantler{worker: w, ungranted: map[string]bool{}, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](shortestRetry, longestRetry))}
}

// approve says which namespaces may be taken apart until the next pass.
func (d *dismantler) approve(names map[string]bool) {
	d.approval.Lock()
	d.approved = names
	d.approval.Unlock()
	for name := range names {
		d.queue.Add(name)
	}
}

func (d *dismantler) isApproved(name string) bool {
	d.approval.Lock()
	defer d.approval.Unlock()
	return d.approved[name]
}

// takeReaped returns how many namespaces have gone since it was last asked.
func (d *dismantler) takeReaped() int {
	d.approval.Lock()
	defer d.approval.Unlock()
	n := d.reaped
	d.reaped = 0
	return n
}

// work takes namespaces apart until ctx ends, so many at a time.
func (d *dismantler) work(ctx context.Context, parallelism int) {
	stop := context.AfterFunc(ctx, d.queue.ShutDown)
	defer stop()
	var all sync.WaitGroup
	for range parallelism {
		all.Go(func() {
			for d.next(ctx) {
			}
		})
	}
	all.Wait()
}

func (d *dismantler) next(ctx context.Context) bool {
	name, shutdown := d.queue.Get()
	if shutdown {
		return false
	}
	defer d.queue.Done(name)
	if !d.isApproved(name) {
		d.queue.Forget(name)
		return true
	}
	again, err := d.step(ctx, name)
	switch {
	case errors.Is(err, errUngranted):
		d.sayUngranted(ctx, name)
		d.queue.Forget(name)
	case err != nil && ctx.Err() == nil:
		d.Metrics.failures.Inc()
		d.Logger.WarnContext(ctx, "A namespace could not be taken apart; trying again", "namespace", name, "error", err)
		d.queue.AddRateLimited(name)
	case again:
		if d.queue.NumRequeues(name) == manyRetries {
			d.Logger.WarnContext(ctx, "A namespace that is reaped does not get further", "namespace", name, "waitsFor", d.held(ctx, name))
		}
		d.queue.AddRateLimited(name)
	default:
		d.queue.Forget(name)
	}
	return true
}

// dismantleNow takes apart what is approved, so many at a time, and returns when all is done, does not get further, or ctx ends. What
// could not be done is an error, and what has to wait is said in the result: nobody else looks after a single pass.
func (d *dismantler) dismantleNow(ctx context.Context, result *Result) error {
	d.approval.Lock()
	names := slices.Sorted(maps.Keys(d.approved))
	d.approval.Unlock()
	var group errgroup.Group
	group.SetLimit(int(d.settings().Parallelism))
	var mu sync.Mutex
	var failed []error
	for _, name := range names {
		group.Go(func() error {
			waits, err := d.stepAll(ctx, name)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				d.Metrics.failures.Inc()
				d.Logger.WarnContext(ctx, "A namespace could not be taken apart; the next pass tries again", "namespace", name, "error", err)
				failed = append(failed, fmt.Errorf("namespace %s: %w", name, err))
			case waits != "":
				d.say(ctx, result, Decision{Kind: "Namespace", Name: name, Verdict: string(Dismantled), Reason: "it waits for " + waits}, false)
			}
			return nil
		})
	}
	_ = group.Wait()
	return errors.Join(failed...)
}

// stepAll takes steps until there are none left, and returns what it still waits for, if so many did not do.
func (d *dismantler) stepAll(ctx context.Context, name string) (waits string, err error) {
	pause := wait.Backoff{Duration: shortestRetry, Factor: 2, Steps: manyRetries, Cap: longestRetry}
	for {
		again, err := d.step(ctx, name)
		switch {
		case err != nil:
			return "", err
		case !again:
			return "", nil
		case pause.Steps == 0:
			return d.held(ctx, name), nil
		}
		select {
		case <-ctx.Done():
			return "", nil
		case <-time.After(pause.Step()):
		}
	}
}

// step does what is next, and says whether there is more to do.
func (d *dismantler) step(ctx context.Context, name string) (again bool, err error) {
	if d.mode(d.settings().Namespaces.Mode) != v1alpha1.ReaperDelete {
		return false, nil // the policy has changed since the pass
	}
	if d.leaving(name) {
		return true, nil
	}
	n, full, err := d.liveNamespace(ctx, name)
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, err
	case n.deleting:
		return false, nil
	}
	if err := d.granted(ctx, n); err != nil {
		return false, err
	}
	dead, err := d.confirm(ctx, n)
	if err != nil || dead == nil {
		return false, err
	}
	if marked, has := instant(n, lifecycle.AnnotationReaping, d.Now()); has {
		d.Announcer.Announce(namespaceEvent(NamespaceReaping, n, marked, "what is in it is being deleted"))
	}
	if keep := d.settings().Namespaces; keep.Retain.Duration > 0 {
		if err := d.Archiver.Save(ctx, full, keep.Retain.Duration, keep.RetainSecrets); err != nil {
			return false, fmt.Errorf("keep what is in it: %w", err)
		}
	}
	if left, err := d.deleteWorkloads(ctx, n, dead.workloads); err != nil || left > 0 {
		return true, err
	}
	if err := d.deletePods(ctx, n, dead.pods); err != nil {
		return true, err
	}
	if left, err := d.deleteClaims(ctx, n, dead.claims); err != nil || left > 0 {
		return true, err
	}
	// Whatever has been written to the namespace since the first look, such as do-not-reap, makes this fail.
	err = d.client.CoreV1().Namespaces().Delete(ctx, n.name, preconditions(&n.object))
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case apierrors.IsConflict(err):
		return true, nil
	case err != nil:
		return false, err
	}
	d.approval.Lock()
	d.reaped++
	d.approval.Unlock()
	d.Metrics.reaped.WithLabelValues("namespaces").Inc()
	since := n.annotations[lifecycle.AnnotationIdleSince]
	d.Logger.InfoContext(ctx, "Reaped a namespace", "namespace", n.name, "role", n.labels[lifecycle.LabelAgentRole],
		"org", n.labels[lifecycle.LabelOrg], "idleSince", since)
	d.Announcer.Announce(namespaceEvent(NamespaceReaped, n, d.Now(), "nothing had run there since "+since))
	return false, nil
}

// confirm decides once more, by what the API server says now, and returns what is in the namespace if that is dead. If anything
// lives, the mark is taken back.
func (d *dismantler) confirm(ctx context.Context, n *namespace) (*facts, error) {
	policy := d.settings()
	if why := notOurs(n, orgs(policy), d.Namespace); why != "" {
		d.Logger.WarnContext(ctx, "A namespace is no longer the reaper's", "namespace", n.name, "reason", why)
		return nil, nil
	}
	f, err := d.liveFacts(ctx, n)
	if err != nil {
		return nil, err
	}
	protected, err := d.protectedObject(ctx, n)
	if err != nil {
		return nil, err
	}
	v := decideNamespace(f, policy, d.Now())
	if protected != "" {
		v = keepFor(n, protected, d.Now())
	}
	if v.phase == Dismantled {
		return f, nil
	}
	d.Logger.InfoContext(ctx, "A namespace that was marked stays", "namespace", n.name, "phase", v.phase, "reason", v.reason)
	written, err := d.annotate(ctx, n, v.annotations)
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, err
	}
	d.inventory.written(written)
	d.announcePhase(n, written, v.reason)
	return nil, nil
}

// leaving says whether something in a namespace is known to be on its way out. While the watches show that, there is no need to ask:
// a step takes a dozen requests.
func (d *dismantler) leaving(name string) bool {
	leaving := false
	d.inventory.look(name, func(p *place) {
		for _, w := range p.workloads {
			orphaned := w.owner != "" && p.workloads[w.owner] == nil // the garbage collector's, which comes to it
			leaving = leaving || w.deleting || orphaned
		}
		for _, c := range p.claims {
			leaving = leaving || c.deleting
		}
	})
	return leaving
}

// errUngranted says that a namespace does not let the reaper take it apart.
var errUngranted = errors.New("it does not grant the reaper to take it apart: it has no RoleBinding of ClusterRole lifecycle-reaper-role-namespace")

// granted returns nil if the namespace lets the reaper take it apart, as its RoleBinding does. One that is empty could be deleted
// without: a right to delete namespaces is one for all of them.
func (d *dismantler) granted(ctx context.Context, n *namespace) error {
	review, err := d.client.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Namespace: n.name, Verb: "delete", Resource: "persistentvolumeclaims",
		}},
	}, metav1.CreateOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("ask for the rights in it: %w", err)
	case !review.Status.Allowed:
		return errUngranted
	}
	return nil
}

// sayUngranted logs once that a namespace stays for that. The next pass asks again.
func (d *dismantler) sayUngranted(ctx context.Context, name string) {
	d.approval.Lock()
	said := d.ungranted[name]
	d.ungranted[name] = true
	d.approval.Unlock()
	if !said {
		d.Logger.WarnContext(ctx, "A namespace stays", "namespace", name, "reason", errUngranted.Error())
	}
}

// protectedObject names a ConfigMap or Secret that somebody protects; "" if there is none. They are not watched, so that this is seen
// only once a namespace is marked.
func (d *dismantler) protectedObject(ctx context.Context, n *namespace) (string, error) {
	for _, k := range d.stamped() {
		if k.kind == "Job" {
			continue // a workload
		}
		all, err := k.list(ctx, n.name, "", "")
		if err != nil {
			return "", err
		}
		for _, l := range all {
			if why := lifecycle.Protection(l.protected, d.Now()); why != "" {
				return fmt.Sprintf("%s %s: %s", l.kind, l.name, why), nil
			}
		}
	}
	return "", nil
}

// keepFor takes the mark off a namespace, which begins to be idle anew.
func keepFor(n *namespace, why string, now time.Time) verdict {
	w := writer{n: n, now: now}
	w.clear(lifecycle.AnnotationReaping, lifecycle.AnnotationSightings)
	w.set(lifecycle.AnnotationIdleSince, now.UTC().Format(time.RFC3339))
	return w.verdict(Protected, why)
}

// liveFacts reads what is in a namespace. It asks for everything at the same time: an API server that lists from its cache may wait
// for that to catch up with each.
func (d *dismantler) liveFacts(ctx context.Context, n *namespace) (*facts, error) {
	f := &facts{namespace: n}
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	for _, k := range kinds() {
		if k.name == "Namespace" {
			continue
		}
		group.Go(func() error {
			records, err := k.live(ctx, d.client, n.name)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				switch r := r.(type) {
				case *pod:
					f.pods = append(f.pods, r)
				case *workload:
					f.workloads = append(f.workloads, r)
				case *claim:
					f.claims = append(f.claims, r)
				case *service:
					f.services = append(f.services, r)
				case *scaler:
					f.scalers = append(f.scalers, r)
				}
			}
			return nil
		})
	}
	return f, group.Wait()
}

// deleteWorkloads deletes what could make Pods, and returns how many are left.
func (d *dismantler) deleteWorkloads(ctx context.Context, n *namespace, workloads []*workload) (int, error) {
	there := map[string]bool{}
	for _, w := range workloads {
		there[workloadKey(w)] = true
	}
	var errs []error
	for _, w := range workloads {
		if w.deleting || there[w.owner] {
			continue
		}
		opts := preconditions(&w.object)
		opts.PropagationPolicy = new(metav1.DeletePropagationBackground)
		i := slices.IndexFunc(kinds(), func(k kind) bool { return k.name == w.kind })
		k := kinds()[i]
		err := k.client(d.client).Delete().Namespace(n.name).Resource(k.resource).Name(w.name).Body(&opts).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete %s %s: %w", w.kind, w.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted what could make Pods in a namespace that is reaped", "namespace", n.name, "kind", w.kind, "name", w.name)
	}
	return len(workloads), errors.Join(errs...)
}

// deletePods deletes Pods that have ended and that no workload takes along: a claim does not go as long as one is there that mounts it.
func (d *dismantler) deletePods(ctx context.Context, n *namespace, pods []*pod) error {
	var errs []error
	for _, p := range pods {
		if p.live || p.deleting {
			continue
		}
		err := d.client.CoreV1().Pods(n.name).Delete(ctx, p.name, preconditions(&p.object))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete Pod %s: %w", p.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted a Pod that had ended in a namespace that is reaped", "namespace", n.name, "pod", p.name)
	}
	return errors.Join(errs...)
}

// deleteClaims deletes the claims, and returns how many are left. Their end is waited for: a namespace that is deleted at once may
// leave volumes behind.
func (d *dismantler) deleteClaims(ctx context.Context, n *namespace, claims []*claim) (int, error) {
	var errs []error
	for _, c := range claims {
		if c.deleting {
			continue
		}
		err := d.client.CoreV1().PersistentVolumeClaims(n.name).Delete(ctx, c.name, preconditions(&c.object))
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("delete claim %s: %w", c.name, err))
			continue
		}
		d.Logger.InfoContext(ctx, "Deleted a claim in a namespace that is reaped", "namespace", n.name, "claim", c.name)
	}
	return len(claims), errors.Join(errs...)
}

// held names what is being deleted in a namespace and does not go, with the finalizers that hold it.
func (d *dismantler) held(ctx context.Context, name string) string {
	list, err := d.client.CoreV1().PersistentVolumeClaims(name).List(ctx, metav1.ListOptions{Limit: pageSize})
	if err != nil {
		return err.Error()
	}
	var held []string
	for i := range list.Items {
		if c := &list.Items[i]; c.DeletionTimestamp != nil {
			held = append(held, fmt.Sprintf("claim %s, held by finalizers %s", c.Name, strings.Join(c.Finalizers, ", ")))
		}
	}
	if len(held) == 0 {
		return "workloads that are being deleted"
	}
	return strings.Join(held, "; ")
}
