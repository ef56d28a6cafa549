package provision

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// Change is what applying one object would do.
type Change struct {
	object, before, after *unstructured.Unstructured

	// Object names it, such as "Deployment agent".
	Object string

	// Diff is a unified diff of its YAML; "" where nothing but its owner changes, and of the role's template, which holds the others
	// once more.
	Diff string

	// Template says that it is the role's template, Keys which keys of that change.
	Template bool
	Keys     []string

	// New says that it does not exist, TakenOver that this command has not applied it before.
	New, TakenOver bool
}

// Plan is what applying a namespace would do.
type Plan struct {
	all     []*unstructured.Unstructured
	scalers scalers

	// Scaled says of which objects an autoscaler sets the replicas, or suspends them: that part is left as it is.
	Scaled []Scaled

	// NewNamespace says that the namespace does not exist: nothing in it has been judged by admission.
	NewNamespace bool

	// Changes is empty if everything is as it should be.
	Changes []Change

	// Missing are the Secrets that something names and that do not exist. They are not this package's to make.
	Missing []SecretUse
}

// Scaled is an object of which an autoscaler sets a part.
type Scaled struct {
	// Object names it, such as "Deployment agent", Field is the part, such as "spec.replicas", and By the autoscaler.
	Object, Field, By string
}

// Plan asks the API server what applying would change, by a dry run: so admission has its say, and what is refused is refused before
// anything has changed. In a namespace that does not exist there is nothing to ask about.
func (p *Provisioner) Plan(ctx context.Context, r *Rendered) (*Plan, error) {
	exists, err := p.admits(ctx, r)
	if err != nil {
		return nil, err
	}
	template, err := r.Template(p.system)
	if err != nil {
		return nil, err
	}
	// The template last: until then the reaper would find that the namespace lacks what is yet to come.
	plan := &Plan{all: append(slices.Clone(r.Objects), template), NewNamespace: !exists}
	if exists {
		if plan.scalers, err = p.scalers(ctx, r.Namespace); err != nil {
			return nil, err
		}
	}
	for _, o := range plan.all {
		change, scaled, err := p.change(ctx, o, plan.scalers, exists || o.GetKind() == kindNamespace || o == template)
		if err != nil {
			return nil, err
		}
		if scaled != nil {
			plan.Scaled = append(plan.Scaled, *scaled)
		}
		if change != nil {
			if o == template {
				change.Template, change.Diff, change.Keys = true, "", keysChanged(change.before, change.after)
			}
			plan.Changes = append(plan.Changes, *change)
		}
	}
	plan.Missing, err = p.missing(ctx, r)
	return plan, err
}

// change says what applying an object would change, nil if nothing, and what is left to an autoscaler, nil if nothing
// is.
func (p *Provisioner) change(ctx context.Context, o *unstructured.Unstructured, s scalers, ask bool) (*Change, *Scaled, error) {
	change := &Change{object: o, Object: nameOf(o)}
	live, err := p.client(o).Get(ctx, o.GetName(), metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		change.New, live = true, &unstructured.Unstructured{}
	case err != nil:
		return nil, nil, fmt.Errorf("%s: %w", nameOf(o), err)
	}
	o, by := s.leaveToScaler(o, live)
	var scaled *Scaled
	if by != "" {
		scaled = &Scaled{Object: nameOf(o), Field: strings.Join(scalingField(o), "."), By: by}
	}
	after := o
	if ask {
		if after, err = p.apply(ctx, o, metav1.DryRunAll); err != nil {
			return nil, nil, err
		}
	}
	if change.Diff, err = diff(live, after, nameOf(o)); err != nil {
		return nil, nil, err
	}
	change.before, change.after = live, after
	change.TakenOver = !change.New && !slices.ContainsFunc(live.GetManagedFields(), func(m metav1.ManagedFieldsEntry) bool {
		return m.Manager == FieldManager && m.Operation == metav1.ManagedFieldsOperationApply
	})
	if change.Diff == "" && !change.TakenOver {
		return nil, scaled, nil
	}
	return change, scaled, nil
}

// Apply does what the plan says. It is no transaction: on an error what came before it has been applied, and running it again goes on.
func (p *Provisioner) Apply(ctx context.Context, plan *Plan) error {
	if len(plan.Changes) == 0 {
		return nil
	}
	// Each of them, and not only those that change: one that is as it should be is not written.
	for i, o := range plan.all {
		if err := p.applyScaled(ctx, o, plan.scalers); err != nil {
			return fmt.Errorf("%w\n%s", err, appliedBefore(plan.all[:i]))
		}
	}
	return nil
}

// appliedBefore says what an error leaves behind.
func appliedBefore(done []*unstructured.Unstructured) string {
	if len(done) == 0 {
		return "nothing was applied"
	}
	names := make([]string, len(done))
	for i, o := range done {
		names[i] = nameOf(o)
	}
	return "applied before it, and left in place: " + strings.Join(names, ", ") + "; running this again goes on from there"
}

// apply applies an object and returns what it then is. A field that somebody else has set too becomes this package's: the diff has
// shown it.
func (p *Provisioner) apply(ctx context.Context, o *unstructured.Unstructured, dryRun ...string) (*unstructured.Unstructured, error) {
	stored, err := p.client(o).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: FieldManager, Force: true, DryRun: dryRun})
	switch {
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		return nil, refused("%s: %w", nameOf(o), err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", nameOf(o), err)
	}
	return stored, nil
}

// missing lists the Secrets that are named and not there. Their values are not asked for.
func (p *Provisioner) missing(ctx context.Context, r *Rendered) ([]SecretUse, error) {
	uses, err := r.Secrets()
	if err != nil {
		return nil, err
	}
	var missing []SecretUse
	secrets := p.metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(r.Namespace)
	for _, use := range uses {
		_, err := secrets.Get(ctx, use.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			missing = append(missing, use)
		case err != nil:
			return nil, fmt.Errorf("look for Secret %s: %w", use.Name, err)
		}
	}
	return missing, nil
}

// keysChanged names what differs in the data of two states of a ConfigMap.
func keysChanged(before, after *unstructured.Unstructured) []string {
	was, _, _ := unstructured.NestedStringMap(before.Object, "data")
	is, _, _ := unstructured.NestedStringMap(after.Object, "data")
	changed := map[string]bool{}
	for key, value := range is {
		if old, has := was[key]; !has || old != value {
			changed[key] = true
		}
	}
	for key := range was {
		if _, has := is[key]; !has {
			changed[key] = true
		}
	}
	return slices.Sorted(maps.Keys(changed))
}

// diff compares two states of an object, but for what the API server writes by itself.
func diff(before, after *unstructured.Unstructured, name string) (string, error) {
	a, err := shown(before)
	if err != nil {
		return "", err
	}
	b, err := shown(after)
	if err != nil {
		return "", err
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{
		A: slices.Collect(strings.Lines(a)), FromFile: name + " as it is",
		B: slices.Collect(strings.Lines(b)), ToFile: name + " as it would be",
		Context: 3,
	})
}

func shown(o *unstructured.Unstructured) (string, error) {
	if len(o.Object) == 0 {
		return "", nil
	}
	o = o.DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	text, err := yaml.Marshal(o.Object)
	return string(text), err
}
