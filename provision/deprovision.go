package provision

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// patience is how long admission may take to hear that a namespace is no longer marked, and how long others may change an object
// time and again while it is to be patched.
const patience = 10 * time.Second

// Stopped is a workload and what becomes of it.
type Stopped struct {
	object *unstructured.Unstructured

	// Object names it, Outcome says what is to be done with it, or that nothing is.
	Object, Outcome string

	patch map[string]any
}

// Stop is what taking a namespace out of service does, or taking that back.
type Stop struct {
	namespace *corev1.Namespace

	// marks are written on the namespace; nil takes one off.
	marks map[string]any

	// mark and workload say what is to be done by what an object is now. An object that has changed is asked about anew.
	mark     func(*corev1.Namespace) (marks map[string]any, says string, err error)
	workload func(*unstructured.Unstructured) (Stopped, error)

	// Namespace is its name, Org its label org, and Annotations are those that it has.
	Namespace, Org string
	Annotations    map[string]string

	// Marks says what is to be written on the namespace, or that nothing is.
	Marks string

	// Workloads is everything in it that runs Pods by itself; for taking it back, what was stopped.
	Workloads []Stopped

	// Keeps is why the reaper would keep the namespace all the same: what protects it is not overruled.
	Keeps []string

	// Claims and Secrets are the names of what goes with the namespace beside its workloads.
	Claims, Secrets []string
}

// Nothing says whether there is nothing to do.
func (s *Stop) Nothing() bool {
	return s.marks == nil && !s.Stops()
}

// Stops says whether anything that runs, or wants to, is to be stopped: until then the namespace is not idle.
func (s *Stop) Stops() bool {
	return slices.ContainsFunc(s.Workloads, func(w Stopped) bool { return w.patch != nil })
}

// Current is the namespace as it was read.
func (s *Stop) Current() *corev1.Namespace { return s.namespace.DeepCopy() }

// newStop begins with the namespace as it is now.
func newStop(n *corev1.Namespace, mark func(*corev1.Namespace) (map[string]any, string, error),
	workload func(*unstructured.Unstructured) (Stopped, error),
) (*Stop, error) {
	marks, says, err := mark(n)
	if err != nil {
		return nil, err
	}
	return &Stop{
		namespace: n, marks: marks, mark: mark, workload: workload,
		Namespace: n.Name, Org: n.Labels[lifecycle.LabelOrg], Annotations: n.Annotations, Marks: says,
	}, nil
}

// ErrNoNamespace is at the root of errors that say that there is no such namespace of a role agent. It is an ErrRefused too.
var ErrNoNamespace = fmt.Errorf("%w", ErrRefused)

// Find finds the namespace of a role, or by its name. org and environment may narrow it. The error is ErrNoNamespace if there is none.
func (p *Provisioner) Find(ctx context.Context, nameOrRole, org, environment string) (*corev1.Namespace, error) {
	list, err := p.typed.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelAgentRole})
	if err != nil {
		return nil, err
	}
	var found []corev1.Namespace
	for i := range list.Items {
		n := &list.Items[i]
		fits := (n.Name == nameOrRole || n.Labels[lifecycle.LabelAgentRole] == nameOrRole) &&
			strings.HasPrefix(n.Name, lifecycle.RoleNamespacePrefix) &&
			(org == "" || org == n.Labels[lifecycle.LabelOrg]) &&
			(environment == "" || environment == n.Labels[lifecycle.LabelEnvironment])
		if fits {
			found = append(found, *n)
		}
	}
	// A name says more than a role.
	if i := slices.IndexFunc(found, func(n corev1.Namespace) bool { return n.Name == nameOrRole }); i >= 0 {
		return &found[i], nil
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, fmt.Errorf("%w: %q is neither the role nor the name of a role agent's namespace, which starts with %q and has the label %s",
			ErrNoNamespace, nameOrRole, lifecycle.RoleNamespacePrefix, lifecycle.LabelAgentRole)
	}
	var names []string
	for i := range found {
		names = append(names, found[i].Name)
	}
	return nil, refused("the role %q has %d namespaces; say which: %s", nameOrRole, len(found), strings.Join(names, ", "))
}

// PlanStop says what taking a namespace out of service would do. by is who says so.
func (p *Provisioner) PlanStop(ctx context.Context, n *corev1.Namespace, by string) (*Stop, error) {
	mark := p.now().UTC().Format(time.RFC3339) + " " + by
	s, err := newStop(n, func(n *corev1.Namespace) (map[string]any, string, error) { return unwanted(n, mark) }, stopping)
	if err != nil {
		return nil, err
	}
	if protection := lifecycle.ProtectionOf(n, p.now()); protection != "" {
		s.Keeps = append(s.Keeps, "it is protected: "+protection)
	}
	err = p.eachWorkload(ctx, n.Name, func(o *unstructured.Unstructured) error {
		if protection := lifecycle.ProtectionOf(o, p.now()); protection != "" {
			s.Keeps = append(s.Keeps, nameOf(o)+" is protected: "+protection)
		}
		if by := (scalers{}).of(o); by != "" {
			s.Keeps = append(s.Keeps, fmt.Sprintf("%s may scale %s up again; first take away by what it scales that", by, nameOf(o)))
		}
		w, err := stopping(o)
		s.Workloads = append(s.Workloads, w)
		return err
	})
	if err != nil {
		return nil, err
	}
	// What scales a workload to 0 and back keeps it from being idle, and may start it again.
	scalers, err := p.typed.AutoscalingV2().HorizontalPodAutoscalers(n.Name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for i := range scalers.Items {
		target := &scalers.Items[i].Spec.ScaleTargetRef
		s.Keeps = append(s.Keeps, fmt.Sprintf("HorizontalPodAutoscaler %s scales %s %s: delete it, or what made it",
			scalers.Items[i].Name, target.Kind, target.Name))
	}
	if s.Claims, err = p.names(ctx, "persistentvolumeclaims", n.Name); err != nil {
		return nil, err
	}
	s.Secrets, err = p.names(ctx, "secrets", n.Name)
	return s, err
}

// unwanted marks a namespace that may go.
func unwanted(n *corev1.Namespace, mark string) (marks map[string]any, says string, err error) {
	if n.DeletionTimestamp != nil {
		return nil, "", refused("namespace %s has been in deletion since %s already", n.Name, n.DeletionTimestamp.UTC().Format(time.RFC3339))
	}
	for _, mark := range lifecycle.ProtectionMarks(n.Labels, n.Annotations) {
		// A protection that ends by itself is no reason to refuse: it is said beside the plan.
		if mark.Key != lifecycle.AnnotationDoNotReap || lifecycle.Protection([]lifecycle.ProtectionMark{mark}, time.Time{}) == "" {
			continue
		}
		kind, verb := "annotation", "annotate"
		if mark.Label {
			kind, verb = "label", "label"
		}
		return nil, "", refused("namespace %s is protected: its %s %s is %q; if it may go, run: kubectl %s namespace %s %s-",
			n.Name, kind, mark.Key, mark.Value, verb, n.Name, mark.Key)
	}
	if already, has := n.Annotations[lifecycle.AnnotationDeprovisioned]; has {
		return nil, "deprovisioned already: " + already, nil
	}
	return map[string]any{lifecycle.AnnotationDeprovisioned: mark}, "to be marked as deprovisioned", nil
}

// names lists what is in a namespace, sorted. Whoever may not list that is not kept from anything else: then it is one name that says so.
func (p *Provisioner) names(ctx context.Context, resource, namespace string) ([]string, error) {
	list, err := p.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: resource}).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if apierrors.IsForbidden(err) {
		return []string{"(you may not list " + resource + ")"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s of namespace %s: %w", resource, namespace, err)
	}
	var names []string
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	slices.Sort(names)
	return names, nil
}

// stopping says how a workload is stopped, such that it can be started again.
func stopping(o *unstructured.Unstructured) (Stopped, error) {
	w := Stopped{object: o, Object: nameOf(o)}
	if o.GetKind() == kindCronJob {
		suspended, _, err := unstructured.NestedBool(o.Object, "spec", "suspend")
		if suspended || err != nil {
			w.Outcome = "is suspended already"
			return w, err
		}
		w.Outcome = "to be suspended"
		w.patch = map[string]any{"metadata": annotate("1"), "spec": map[string]any{"suspend": true}}
		return w, nil
	}
	replicas, has, err := unstructured.NestedInt64(o.Object, "spec", "replicas")
	if err != nil {
		return w, err
	}
	if !has {
		replicas = 1
	}
	if replicas == 0 {
		w.Outcome = "has no replicas already"
		return w, nil
	}
	const whenScaled = "spec.persistentVolumeClaimRetentionPolicy.whenScaled"
	if policy, _, err := unstructured.NestedString(o.Object, strings.Split(whenScaled, ".")...); err != nil ||
		policy == string(appsv1.DeletePersistentVolumeClaimRetentionPolicyType) {
		return w, refused("%s is %q: Kubernetes would delete its claims when it is scaled to 0; accepted is Retain", whenScaled, policy)
	}
	w.Outcome = fmt.Sprintf("to be scaled from %d to 0", replicas)
	w.patch = map[string]any{"metadata": annotate(strconv.FormatInt(replicas, 10)), "spec": map[string]any{"replicas": 0}}
	return w, nil
}

func annotate(replicas any) map[string]any {
	return map[string]any{"annotations": map[string]any{lifecycle.AnnotationReplicasBefore: replicas}}
}
