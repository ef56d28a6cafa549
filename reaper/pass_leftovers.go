package reaper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/pager"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const (
	// leftoverInterval is how often a namespace is looked at in which no Pod has ended.
	leftoverInterval = 6 * time.Hour

	// leftoverRetry is when a namespace is looked at again whose leftovers could not be read.
	leftoverRetry = 10 * time.Minute

	// leftoverLooks is how many namespaces one pass looks at: each takes some lists. A pass that is the only one looks at all: the next
	// one knows nothing of it, and would look at the same again.
	leftoverLooks = 100
)

// stamped lists the kinds of leftovers. Secrets are read one namespace at a time, where the reaper has been given the right, and
// never from a cache.
func stamped(client kubernetes.Interface) []stampedKind {
	return []stampedKind{
		{"ConfigMap", "configmaps", client.CoreV1().RESTClient()},
		{"Secret", "secrets", client.CoreV1().RESTClient()},
		{"Job", "jobs", client.BatchV1().RESTClient()},
	}
}

type stampedKind struct {
	kind, resource string
	client         rest.Interface
}

// leftoversDue has the leftovers of a namespace looked at, at the latest then. A worker calls it with its inventory locked.
func (w *worker) leftoversDue(namespace string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, has := w.due[namespace]; !has || at.Before(before) {
		w.due[namespace] = at
	}
}

// found is a leftover that goes.
type found struct {
	*leftover
	stampedKind
	reason string

	// wanted are the names of all leftovers of its namespace.
	wanted map[string]bool
}

// passLeftovers deletes what role agents made and forgot, in the namespaces in which a Pod has ended, time has come for something, or
// nobody has looked for long.
func (w *worker) passLeftovers(ctx context.Context) Result {
	policy := w.settings()
	mode := w.mode(policy.Leftovers.Mode)
	result := Result{Reaper: "leftovers", Mode: string(mode)}
	if mode == v1alpha1.ReaperOff {
		return result
	}
	var candidates []found
	var errs []error
	references := &referenceReader{client: w.client}
	for _, name := range w.leftoverNamespaces(policy) {
		goes, next, err := w.leftoversIn(ctx, name, policy, references, &result)
		switch {
		case apierrors.IsForbidden(err):
			result.keep("no rights in its namespace")
			w.say(ctx, &result, Decision{Kind: "Namespace", Name: name, Verdict: "leftovers are not looked at", Reason: err.Error()}, false)
			next = w.Now().Add(leftoverInterval)
		case err != nil:
			errs = append(errs, fmt.Errorf("namespace %s: %w", name, err))
			next = w.Now().Add(leftoverRetry)
		default:
			candidates = append(candidates, goes...)
		}
		w.mu.Lock()
		w.due[name] = next
		w.mu.Unlock()
	}
	// How many there are in the whole cluster is not known, so that there is no percentage of them.
	result.Cap = int(policy.Cap.Count)
	latest := &latestMentions{client: w.client, now: w.Now}
	w.reapEach(ctx, &result, mode, len(candidates), func(i int) (Decision, func(context.Context) error) {
		f := candidates[i]
		return Decision{Kind: f.stampedKind.kind, Namespace: f.namespace, Name: f.name, Reason: f.reason, uid: f.uid},
			func(ctx context.Context) error { return w.deleteLeftover(ctx, &f, latest) }
	})
	if len(errs) > 0 {
		result.Error = errors.Join(errs...).Error()
	}
	return result
}

// leftoverNamespaces lists the namespaces to look at now.
func (w *worker) leftoverNamespaces(policy *v1alpha1.Reaper) []string {
	var names []string
	for _, n := range w.waiting(policy, w.due, func(*namespace) time.Time { return time.Time{} }) {
		if names = append(names, n.name); len(names) == leftoverLooks && !w.once {
			break
		}
	}
	return names
}

// leftoversIn decides on the leftovers of one namespace, as the API server's cache has them; each deletion decides once more. It
// returns those that go, and when to look again.
func (w *worker) leftoversIn(
	ctx context.Context, namespace string, policy *v1alpha1.Reaper, references *referenceReader, result *Result,
) ([]found, time.Time, error) {
	next := w.Now().Add(leftoverInterval)
	all, err := listStamped(ctx, w.client, namespace)
	if err != nil || len(all) == 0 {
		return nil, next, err
	}
	around, err := readSurroundings(ctx, w.client, namespace)
	if err != nil {
		return nil, next, err
	}
	var goes []found
	for _, f := range all {
		result.Examined++
		o := decideLeftover(f.leftover, around, &policy.Leftovers, w.Now())
		if around.mentions == nil && f.leftover.kind != "Job" && !f.deleting && (o.goes || o.since != "") {
			around.mentions = references.read(ctx, namespace, namesOf(all))
			if unknown := around.mentions.unknown; unknown != "" {
				w.say(ctx, result, Decision{Kind: "Namespace", Name: namespace, Verdict: "leftovers are kept", Reason: unknown}, false)
			}
			o = decideLeftover(f.leftover, around, &policy.Leftovers, w.Now())
		}
		if !o.next.IsZero() && o.next.Before(next) {
			next = o.next
		}
		if o.goes {
			f.reason, f.wanted = o.reason, namesOf(all)
			goes = append(goes, f)
			next = w.Now() // whatever keeps it this time
			if w.DryRun || w.mode(policy.Leftovers.Mode) != v1alpha1.ReaperDelete {
				next = w.Now().Add(leftoverRetry) // nothing is deleted, and to read what refers to it takes many lists
			}
			continue
		}
		result.keep(o.reason)
		if o.since != f.annotations[lifecycle.AnnotationOrphanedSince] && !w.DryRun {
			if err := f.note(ctx, &f.object, o.since); err != nil {
				return nil, next, err
			}
		}
	}
	return goes, next, nil
}

// listStamped lists what the agents' Pods of a namespace have made, as the API server's cache has it.
func listStamped(ctx context.Context, client kubernetes.Interface, namespace string) ([]found, error) {
	var all []found
	for _, k := range stamped(client) {
		leftovers, err := k.list(ctx, namespace, lifecycle.LabelCreatedByPodUID, fromCache)
		if err != nil {
			return nil, err
		}
		for _, l := range leftovers {
			all = append(all, found{leftover: l, stampedKind: k})
		}
	}
	return all, nil
}

// fromCache lets an API server answer by its cache as it is: a list as things are now would wait for that to catch up.
const fromCache = "0"

func namesOf(all []found) map[string]bool {
	names := make(map[string]bool, len(all))
	for _, f := range all {
		names[f.name] = true
	}
	return names
}

// acceptMetadata asks for a list without what its objects hold.
const acceptMetadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// list lists the stamped objects of a kind in a namespace, as they are now unless a resource version is given. Of ConfigMaps and
// Secrets it takes the metadata alone.
func (k *stampedKind) list(ctx context.Context, namespace, selector, resourceVersion string) ([]*leftover, error) {
	var all []*leftover
	pages := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		request := k.client.Get().Namespace(namespace).Resource(k.resource).VersionedParams(&opts, scheme.ParameterCodec)
		if k.kind == "Job" {
			page := &batchv1.JobList{}
			return page, request.Do(ctx).Into(page)
		}
		answer := request.SetHeader("Accept", acceptMetadata).Do(ctx)
		if err := answer.Error(); err != nil { // Raw would leave out what the API server says about it
			return nil, err
		}
		raw, err := answer.Raw()
		if err != nil {
			return nil, err
		}
		page := &metav1.PartialObjectMetadataList{}
		return page, json.Unmarshal(raw, page)
	})
	err := pages.EachListItem(ctx, metav1.ListOptions{
		LabelSelector: selector, Limit: pageSize, ResourceVersion: resourceVersion,
	}, func(o runtime.Object) error {
		l, err := leftoverOf(k.kind, o)
		if err == nil {
			all = append(all, l)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", k.resource, err)
	}
	return all, nil
}

func leftoverOf(kind string, o runtime.Object) (*leftover, error) {
	var meta *metav1.ObjectMeta
	var finished time.Time
	switch o := o.(type) {
	case *batchv1.Job:
		meta, finished = &o.ObjectMeta, finishedAt(o)
	case *metav1.PartialObjectMetadata:
		meta = &o.ObjectMeta
	default:
		return nil, fmt.Errorf("%T is no %s", o, kind)
	}
	return &leftover{
		object: newObject(meta), kind: kind, labels: meta.Labels, annotations: meta.Annotations, madeBy: types.UID(meta.Labels[lifecycle.LabelCreatedByPodUID]),
		owned: len(meta.OwnerReferences) > 0, written: lastWrite(meta.ManagedFields), finished: finished,
	}, nil
}

// note writes since when an object belongs to nobody, or takes that off.
func (k *stampedKind) note(ctx context.Context, o *object, since string) error {
	return noteOrphan(ctx, k.client, k.resource, o, since)
}

// deleteLeftover decides once more, by what the API server says now. What custom objects and those of the cluster
// mention is as it was read some seconds ago: there may be hundreds of kinds.
func (w *worker) deleteLeftover(ctx context.Context, f *found, latest *latestMentions) error {
	leftovers, err := f.list(ctx, f.namespace, lifecycle.LabelCreatedByPodUID, "")
	if err != nil {
		return err
	}
	around, err := readSurroundings(ctx, w.client, f.namespace)
	if err != nil {
		return err
	}
	if f.stampedKind.kind != "Job" {
		around.mentions = latest.of(ctx, f.namespace, f.wanted)
	}
	for _, l := range leftovers {
		if l.name != f.name || l.uid != f.uid {
			continue
		}
		if o := decideLeftover(l, around, &w.settings().Leftovers, w.Now()); !o.goes {
			return kept("%s", o.reason)
		}
		opts := preconditions(&l.object)
		opts.PropagationPolicy = new(metav1.DeletePropagationBackground) // a Job's Pods go with it
		if f.stampedKind.kind != "Job" {
			opts.PropagationPolicy = new(metav1.DeletePropagationOrphan) // what it owns may be in use, of whatever kind that is
		}
		return f.client.Delete().Namespace(f.namespace).Resource(f.resource).Name(f.name).Body(&opts).Do(ctx).Error()
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: f.resource}, f.name)
}

// readSurroundings reads which Pods are there, and what Pods, workloads and service accounts refer to.
func readSurroundings(ctx context.Context, client kubernetes.Interface, namespace string) (*surroundings, error) {
	around := &surroundings{pods: map[types.UID]bool{}, makers: makers{}, references: map[string]bool{}, annotated: map[string]bool{}}
	for _, k := range kinds() {
		if k.name != "Pod" && !k.workload {
			continue
		}
		err := k.liveObjects(ctx, client, namespace, func(o runtime.Object) error {
			meta, err := apimeta.Accessor(o)
			if err != nil {
				return err
			}
			if k.workload {
				around.makers.add(meta)
			} else {
				around.pods[meta.GetUID()] = true
			}
			around.annotate(meta.GetAnnotations())
			for _, owner := range meta.GetOwnerReferences() {
				around.references[owner.Kind+"/"+owner.Name] = true // the garbage collector would take this along
			}
			for _, template := range podTemplates(o) {
				around.annotate(template.Annotations)
			}
			for _, spec := range podSpecs(o) {
				around.refer(spec)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	accounts, err := client.CoreV1().ServiceAccounts(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list serviceaccounts: %w", err)
	}
	if err := whole(accounts); err != nil {
		return nil, fmt.Errorf("list serviceaccounts: %w", err)
	}
	for i := range accounts.Items {
		around.annotate(accounts.Items[i].Annotations)
		for _, s := range accounts.Items[i].Secrets {
			around.references["Secret/"+s.Name] = true
		}
		for _, s := range accounts.Items[i].ImagePullSecrets {
			around.references["Secret/"+s.Name] = true
		}
	}
	return around, nil
}
