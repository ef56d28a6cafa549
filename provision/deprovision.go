package provision

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// undoPatience is how long admission may take to hear that a namespace is no longer marked.
const undoPatience = 10 * time.Second

// Stopped is a workload and what becomes of it.
type Stopped struct {
	object *unstructured.Unstructured

	// Object names it, Outcome says what was or would be done with it.
	Object, Outcome string

	patch map[string]any
}

// Stop is what taking a namespace out of service does, or taking that back.
type Stop struct {
	namespace *corev1.Namespace

	// marks are written on the namespace; nil takes one off.
	marks map[string]any

	// Namespace is its name.
	Namespace string

	// Marks says what is written on the namespace.
	Marks string

	// Workloads is everything in it that runs Pods by itself.
	Workloads []Stopped

	// Keeps is why the reaper would keep the namespace all the same: what protects it is not overruled.
	Keeps []string
}

// Find finds the namespace of a role, or by its name. org and environment may narrow it.
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
		return nil, refused("%q is neither the role nor the name of a role agent's namespace, which starts with %q and has the label %s",
			nameOrRole, lifecycle.RoleNamespacePrefix, lifecycle.LabelAgentRole)
	}
	var names []string
	for i := range found {
		names = append(names, found[i].Name)
	}
	return nil, refused("the role %q has %d namespaces; say which: %s", nameOrRole, len(found), strings.Join(names, ", "))
}

// PlanStop says what taking a namespace out of service would do. by is who says so.
func (p *Provisioner) PlanStop(ctx context.Context, n *corev1.Namespace, by string) (*Stop, error) {
	if n.DeletionTimestamp != nil {
		return nil, refused("namespace %s has been in deletion since %s already", n.Name, n.DeletionTimestamp.UTC().Format(time.RFC3339))
	}
	if value, has := n.Annotations[lifecycle.AnnotationDoNotReap]; has && value != "false" {
		return nil, refused("namespace %s is protected: its annotation %s is %q; if it may go, run: kubectl annotate namespace %s %s-",
			n.Name, lifecycle.AnnotationDoNotReap, value, n.Name, lifecycle.AnnotationDoNotReap)
	}
	s := &Stop{namespace: n, Namespace: n.Name}
	if until, has := n.Annotations[lifecycle.AnnotationDoNotReapUntil]; has && !p.past(until) {
		s.Keeps = append(s.Keeps, fmt.Sprintf("its annotation %s is %q", lifecycle.AnnotationDoNotReapUntil, until))
	}
	if mark, has := n.Annotations[lifecycle.AnnotationDeprovisioned]; has {
		s.Marks = "deprovisioned already: " + mark
	} else {
		mark = p.now().UTC().Format(time.RFC3339) + " " + by
		s.marks, s.Marks = map[string]any{lifecycle.AnnotationDeprovisioned: mark}, "marked as deprovisioned"
	}
	err := p.eachWorkload(ctx, n.Name, func(o *unstructured.Unstructured) error {
		if value, has := o.GetAnnotations()[lifecycle.AnnotationDoNotReap]; has && value != "false" {
			s.Keeps = append(s.Keeps, fmt.Sprintf("annotation %s of %s is %q", lifecycle.AnnotationDoNotReap, nameOf(o), value))
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
	return s, nil
}

// past says whether a protection until then is over. What is no time protects for ever.
func (p *Provisioner) past(until string) bool {
	at, err := time.Parse(time.RFC3339, until)
	return err == nil && !at.After(p.now())
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
		w.Outcome = "suspended"
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
	w.Outcome = fmt.Sprintf("scaled from %d to 0", replicas)
	w.patch = map[string]any{"metadata": annotate(strconv.FormatInt(replicas, 10)), "spec": map[string]any{"replicas": 0}}
	return w, nil
}

func annotate(replicas any) map[string]any {
	return map[string]any{"annotations": map[string]any{lifecycle.AnnotationReplicasBefore: replicas}}
}

// PlanUndo says what taking a namespace into service again would do.
func (p *Provisioner) PlanUndo(ctx context.Context, n *corev1.Namespace) (*Stop, error) {
	if n.DeletionTimestamp != nil {
		return nil, refused("namespace %s has been in deletion since %s, which cannot be taken back; where the policy retains what is reaped,"+
			" run afterwards: kubectl agents restore %s", n.Name, n.DeletionTimestamp.UTC().Format(time.RFC3339), n.Name)
	}
	s := &Stop{namespace: n, Namespace: n.Name, Marks: "has no mark"}
	for _, key := range []string{lifecycle.AnnotationDeprovisioned, lifecycle.AnnotationReaping} {
		if _, has := n.Annotations[key]; has {
			if s.marks == nil {
				s.marks = map[string]any{}
			}
			s.marks[key], s.Marks = nil, "marks taken off"
		}
	}
	err := p.eachWorkload(ctx, n.Name, func(o *unstructured.Unstructured) error {
		w, is := starting(o)
		if is {
			s.Workloads = append(s.Workloads, w)
		}
		return nil
	})
	return s, err
}

// starting says how a workload that was stopped is started again.
func starting(o *unstructured.Unstructured) (w Stopped, is bool) {
	before, has := o.GetAnnotations()[lifecycle.AnnotationReplicasBefore]
	replicas, err := strconv.ParseInt(before, 10, 32)
	if !has || err != nil || replicas < 0 {
		return Stopped{}, false
	}
	w = Stopped{object: o, Object: nameOf(o)}
	if o.GetKind() == kindCronJob {
		w.Outcome = "no longer suspended"
		w.patch = map[string]any{"metadata": annotate(nil), "spec": map[string]any{"suspend": false}}
		return w, true
	}
	w.Outcome = fmt.Sprintf("scaled to %d", replicas)
	w.patch = map[string]any{"metadata": annotate(nil), "spec": map[string]any{"replicas": replicas}}
	if now, _, _ := unstructured.NestedInt64(o.Object, "spec", "replicas"); now != 0 {
		w.Outcome = fmt.Sprintf("has %d replicas already", now)
		w.patch = map[string]any{"metadata": annotate(nil)} // somebody has scaled it since
	}
	return w, true
}

// eachWorkload goes through everything in a namespace that runs Pods and that no other workload made.
func (p *Provisioner) eachWorkload(ctx context.Context, namespace string, do func(*unstructured.Unstructured) error) error {
	for _, k := range kinds() {
		if k.Kind != kindDeployment && k.Kind != kindStatefulSet && k.Kind != kindCronJob {
			continue
		}
		list, err := p.objects.Resource(k.GroupVersion().WithResource(k.resource)).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			o := &list.Items[i]
			if metav1.GetControllerOf(o) != nil || o.GetDeletionTimestamp() != nil {
				continue
			}
			if err := do(o); err != nil {
				return fmt.Errorf("%s: %w", nameOf(o), err)
			}
		}
	}
	return nil
}

// Do does what a Stop says: the namespace first, so that nobody provisions it meanwhile, and so that admission lets what is taken into
// service again start. It deletes nothing. On an error, planning and doing it again goes on.
func (p *Provisioner) Do(ctx context.Context, s *Stop) error {
	if s.marks != nil {
		n := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": kindNamespace}}
		n.SetName(s.Namespace)
		n.SetUID(s.namespace.UID)
		n.SetResourceVersion(s.namespace.ResourceVersion)
		if err := p.patch(ctx, n, map[string]any{"metadata": map[string]any{"annotations": s.marks}}); err != nil {
			return err
		}
	}
	for _, w := range s.Workloads {
		if w.patch == nil {
			continue
		}
		// Admission hears of the namespace a moment later, and till then says that it is being reaped.
		var last error
		err := wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, undoPatience, true, func(ctx context.Context) (bool, error) {
			last = p.patch(ctx, w.object, w.patch)
			return !apierrors.IsForbidden(last), nil
		})
		if last != nil {
			err = last
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// patch changes an object if it is still as it was seen.
func (p *Provisioner) patch(ctx context.Context, o *unstructured.Unstructured, patch map[string]any) error {
	meta, _ := patch["metadata"].(map[string]any)
	meta["uid"], meta["resourceVersion"] = o.GetUID(), o.GetResourceVersion()
	content, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	_, err = p.client(o).Patch(ctx, o.GetName(), types.MergePatchType, content, metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsConflict(err) {
		return refused("%s has changed meanwhile: run this again", nameOf(o))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", nameOf(o), err)
	}
	return nil
}
