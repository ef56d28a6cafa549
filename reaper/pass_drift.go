package reaper

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const (
	// driftGrace is how long a namespace is left alone that is being furnished, driftSettle how long after something in it has come
	// or gone.
	driftGrace  = 2 * time.Minute
	driftSettle = time.Minute

	// driftLooks is how many namespaces one pass compares: each takes as many reads as the template has objects. A pass that is the
	// only one compares all.
	driftLooks = 100
)

// comparedKind is a kind of object that a template may have.
type comparedKind struct {
	gvk      schema.GroupVersionKind
	resource string
	client   func(kubernetes.Interface) rest.Interface
}

func rbac(c kubernetes.Interface) rest.Interface       { return c.RbacV1().RESTClient() }
func networking(c kubernetes.Interface) rest.Interface { return c.NetworkingV1().RESTClient() }

// comparedKinds lists what the reaper may read, in the cluster or in a role agent's namespace that has granted it.
func comparedKinds() []comparedKind {
	return []comparedKind{
		{corev1.SchemeGroupVersion.WithKind("Namespace"), "namespaces", core},
		{corev1.SchemeGroupVersion.WithKind("ServiceAccount"), "serviceaccounts", core},
		{corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), "persistentvolumeclaims", core},
		{corev1.SchemeGroupVersion.WithKind("Service"), "services", core},
		{corev1.SchemeGroupVersion.WithKind("ConfigMap"), "configmaps", core},
		{corev1.SchemeGroupVersion.WithKind("Secret"), "secrets", core},
		{corev1.SchemeGroupVersion.WithKind("ResourceQuota"), "resourcequotas", core},
		{corev1.SchemeGroupVersion.WithKind("LimitRange"), "limitranges", core},
		{rbacv1.SchemeGroupVersion.WithKind("Role"), "roles", rbac},
		{rbacv1.SchemeGroupVersion.WithKind("RoleBinding"), "rolebindings", rbac},
		{networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), "networkpolicies", networking},
		{appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments", apps},
		{appsv1.SchemeGroupVersion.WithKind("StatefulSet"), "statefulsets", apps},
		{batchv1.SchemeGroupVersion.WithKind("CronJob"), "cronjobs", batch},
	}
}

func comparedKindOf(gvk schema.GroupVersionKind) *comparedKind {
	kinds := comparedKinds()
	i := slices.IndexFunc(kinds, func(k comparedKind) bool { return k.gvk == gvk })
	if i < 0 {
		return nil
	}
	return &kinds[i]
}

// driftDueAt has a namespace compared, at the latest then. A worker calls it with its inventory locked.
func (w *worker) driftDueAt(namespace string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, has := w.driftDue[namespace]; has && at.Before(before) {
		w.driftDue[namespace] = at
	}
}

// passDrift compares the namespaces of role agents with the templates of their roles: those in which something has come or gone, and
// those that nobody has compared for a while.
func (w *worker) passDrift(ctx context.Context) Result {
	policy := w.settings()
	result := Result{Reaper: "drift", Mode: string(policy.Drift.Mode)}
	if policy.Drift.Mode == v1alpha1.DriftOff {
		w.Metrics.drifted.Set(0)
		return result
	}
	// However few are compared: a namespace that has gone has drifted no more.
	defer w.meterDrift(policy)
	due := w.waiting(policy, w.driftDue, func(n *namespace) time.Time { return n.created.Add(driftGrace) })
	if len(due) == 0 {
		return result
	}
	templates, err := w.templates(ctx)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	var names []*namespace
	looks := 0
	for _, n := range due {
		if leaves(n) {
			continue // what is taken apart lacks ever more
		}
		if len(templates[n.labels[lifecycle.LabelAgentRole]]) > 0 {
			looks++
			if looks > driftLooks && !w.once {
				continue
			}
		}
		names = append(names, n)
	}
	var group errgroup.Group
	group.SetLimit(int(policy.Parallelism))
	var mu sync.Mutex
	var errs []error
	for _, n := range names {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error {
			found, has, err := w.driftOf(ctx, n, templates)
			if err == nil {
				err = w.noteDrift(ctx, n, found)
			}
			mu.Lock()
			defer mu.Unlock()
			next := w.Now().Add(policy.Drift.Interval.Duration)
			d := Decision{Kind: "Namespace", Name: n.name, Verdict: "as its template"}
			switch {
			case apierrors.IsConflict(err), apierrors.IsNotFound(err): // the next pass sees what it is now
				next = w.Now()
				result.keep("changed meanwhile")
			case err != nil:
				next = w.Now().Add(driftSettle)
				errs = append(errs, fmt.Errorf("namespace %s: %w", n.name, err))
			case !has:
				result.keep("its role has no template")
			case len(found) == 0:
				result.keep(d.Verdict)
				w.say(ctx, &result, d, true)
			default:
				d.Verdict, d.Reason = "drifted", found.summary()
				result.keep(d.Verdict)
				w.say(ctx, &result, d, false)
			}
			result.Examined++
			w.mu.Lock()
			w.driftDue[n.name] = next
			w.mu.Unlock()
			return nil
		})
	}
	_ = group.Wait()
	result.Error = message(errors.Join(errs...))
	return result
}

// templates reads the templates of all roles, by role. A role may have several.
func (w *worker) templates(ctx context.Context) (map[string][]corev1.ConfigMap, error) {
	list, err := w.client.CoreV1().ConfigMaps(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelRoleTemplate})
	if err != nil {
		return nil, fmt.Errorf("list templates of roles: %w", err)
	}
	templates := map[string][]corev1.ConfigMap{}
	for i := range list.Items {
		role := list.Items[i].Labels[lifecycle.LabelRoleTemplate]
		templates[role] = append(templates[role], list.Items[i])
	}
	return templates, nil
}

// driftOf compares a namespace with its role's template, by what the API server says now; has is false if there is none. A template
// that cannot be read says nothing of the namespace: that is an error, and not a drift.
func (w *worker) driftOf(ctx context.Context, n *namespace, templates map[string][]corev1.ConfigMap) (found drift, has bool, err error) {
	for _, template := range templates[n.labels[lifecycle.LabelAgentRole]] {
		if !isFor(template.Labels, n) {
			continue
		}
		all, err := readTemplate(template.Data, n.name)
		if err != nil {
			return nil, true, fmt.Errorf("template %s/%s: %w", template.Namespace, template.Name, err)
		}
		for i := range all {
			differences, err := w.differences(ctx, n.name, &all[i])
			if err != nil {
				return nil, true, fmt.Errorf("%s: %w", all[i].id(), err)
			}
			found = append(found, differences...)
		}
		has = true
	}
	return found, has, nil
}

// isFor says whether a template with these labels is one for a namespace of its role: one that has an org or an environment is for no
// other.
func isFor(labels map[string]string, n *namespace) bool {
	for _, key := range []string{lifecycle.LabelOrg, lifecycle.LabelEnvironment} {
		if value, has := labels[key]; has && value != n.labels[key] {
			return false
		}
	}
	return true
}

func (w *worker) differences(ctx context.Context, namespace string, want *wanted) (drift, error) {
	whole := func(found string) drift { return drift{{object: want.id(), found: found}} }
	k := comparedKindOf(want.gvk)
	if k == nil {
		return whole("is of a kind that the reaper does not read, " + want.gvk.GroupVersion().String()), nil
	}
	fields, err := k.read(ctx, w.client, namespace, want)
	switch {
	case apierrors.IsNotFound(err):
		return whole("is missing"), nil
	case apierrors.IsForbidden(err):
		return whole("may not be read by the reaper: the namespace has not granted it"), nil
	case err != nil:
		return nil, err
	}
	return differencesOf(want, fields, w.inventory.facts(namespace)), nil
}

// differencesOf says how an object differs from the template, by what its namespace holds; f is nil if that is not
// known.
func differencesOf(want *wanted, fields map[string]any, f *facts) drift {
	found := compare(want, fields)
	if f.isScaled(want.gvk.Kind, fields) {
		return found.withoutScaling()
	}
	return found
}

// isScaled says whether something else than its manifest sets the replicas of an object, or suspends it.
func (f *facts) isScaled(kind string, fields map[string]any) bool {
	if f == nil || !slices.Contains([]string{"Deployment", "StatefulSet", "CronJob"}, kind) {
		return false
	}
	content, is := fields["metadata"].(map[string]any)
	var meta metav1.ObjectMeta
	if !is || runtime.DefaultUnstructuredConverter.FromUnstructured(content, &meta) != nil {
		return false
	}
	return f.scaledBy(kind, meta.Name, &meta) != ""
}

// read reads an object. Of a Secret of which the template has nothing but metadata, no more is read.
func (k *comparedKind) read(ctx context.Context, c kubernetes.Interface, namespace string, want *wanted) (map[string]any, error) {
	request := k.client(c).Get().Resource(k.resource).Name(want.name)
	if want.gvk.Kind != "Namespace" {
		request = request.Namespace(namespace)
	}
	var o runtime.Object = &metav1.PartialObjectMetadata{}
	if want.gvk.Kind == "Secret" && onlyMetadata(want.fields) {
		answer := request.SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx)
		if err := answer.Error(); err != nil {
			return nil, err
		}
		content, err := answer.Raw()
		if err != nil {
			return nil, err
		}
		if err := runtime.DecodeInto(scheme.Codecs.UniversalDeserializer(), content, o); err != nil {
			return nil, err
		}
		return fieldsOf(o)
	}
	o, err := scheme.Scheme.New(k.gvk)
	if err != nil {
		return nil, err
	}
	if err := request.Do(ctx).Into(o); err != nil {
		return nil, err
	}
	return fieldsOf(o)
}

func onlyMetadata(fields map[string]any) bool {
	return !slices.ContainsFunc(slices.Collect(maps.Keys(fields)), func(key string) bool { return key != "metadata" })
}

// noteDrift writes on a namespace how it differs, and tells of it, if that has changed.
func (w *worker) noteDrift(ctx context.Context, n *namespace, found drift) error {
	before, had := n.annotations[lifecycle.AnnotationDrift]
	var value *string
	if len(found) > 0 {
		value = new(found.summary())
	}
	if w.DryRun || had == (value != nil) && (value == nil || before == *value) {
		return nil
	}
	written, err := w.annotate(ctx, n, map[string]*string{lifecycle.AnnotationDrift: value})
	if err != nil {
		return err
	}
	w.inventory.written(written)
	if value != nil {
		e := namespaceEvent(NamespaceDrifted, written, w.Now(), *value)
		e.ID += "/" + found.hash()
		e.Drift = found.lines()
		w.Announcer.Announce(e)
	}
	return nil
}

// leaves says whether a namespace is on its way out.
func leaves(n *namespace) bool {
	_, marked := n.annotations[lifecycle.AnnotationReaping]
	_, stopped := n.annotations[lifecycle.AnnotationDeprovisioned]
	return marked || stopped || n.deleting
}

// meterDrift counts the namespaces on which a drift is noted, but not those that are on their way out: nobody mends them.
func (w *worker) meterDrift(policy *v1alpha1.Reaper) {
	ours, drifted := orgs(policy), 0
	w.inventory.each(func(p *place) {
		if p.namespace == nil || w.foreign(p.namespace, ours) != "" || leaves(p.namespace) {
			return
		}
		if _, has := p.namespace.annotations[lifecycle.AnnotationDrift]; has {
			drifted++
		}
	})
	w.Metrics.drifted.Set(float64(drifted))
}
