package archive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// ErrRefused is wrapped by errors about an archive that cannot be restored, or given up, as things are. Any other
// error means that this could not be found out.
var ErrRefused = errors.New("refused")

// RestoreOptions say how a namespace is restored.
type RestoreOptions struct {
	// DryRun says what would be done, and writes nothing.
	DryRun bool

	// Wait is how long volumes have to be bound to the restored claims. Default: 1m.
	Wait time.Duration
}

// Outcome is what became of one object.
type Outcome string

// The outcomes of a Restore. All but Created and Exists leave something to do.
const (
	Created       Outcome = "created"
	Exists        Outcome = "exists"
	ValuesMissing Outcome = "values missing"
	Failed        Outcome = "failed"
)

// Result is what became of one object.
type Result struct {
	Kind    string
	Name    string
	Outcome Outcome

	// Detail says why it failed or what is to be done. Keys are those of a Secret whose values are missing.
	Detail string
	Keys   []string
}

// Restored is what became of an archive's objects, in their order.
type Restored struct {
	Archive Info
	Results []Result

	// LeftOut is what the archive does not hold, by kind and name. Archives of older versions did not note it: see
	// Info.LeftOutNoted.
	LeftOut []LeftOut

	// Labels and Annotations are the namespace's, as it is or would be now; nil if it is not there.
	Labels, Annotations map[string]string
}

// Complete says whether all that the archive holds is back.
func (r *Restored) Complete() bool { return len(r.Missing()) == 0 }

// Missing returns what the archive holds and what is not back.
func (r *Restored) Missing() []Result {
	var missing []Result
	for _, result := range r.Results {
		if result.Outcome != Created && result.Outcome != Exists {
			missing = append(missing, result)
		}
	}
	return missing
}

func (r *Restored) add(results ...Result) { r.Results = append(r.Results, results...) }

// Restore brings back an archive's namespace with its objects and volumes. The name is a namespace's, which stands for its newest archive, or
// an archive's. It may be called again, and does what is left to do: what exists stays as it is. An object that
// fails does not keep the others from it; the result says so. With an error there may be a result as well.
func (a *Archive) Restore(ctx context.Context, name string, opts RestoreOptions) (*Restored, error) {
	i, err := a.find(ctx, name)
	if err != nil {
		return nil, err
	}
	c, err := a.load(ctx, i)
	if err != nil {
		return nil, damagedIs(err)
	}
	late, err := a.lateVolumes(ctx, i, c)
	if err != nil {
		return nil, err
	}
	restored := &Restored{Archive: *i, LeftOut: append(c.LeftOut, late...)}
	r := &restorer{Archive: a, info: i, content: c, dryRun: opts.DryRun, restored: restored}
	if err := r.namespace(ctx); err != nil {
		return restored, err
	}
	volumes, err := r.volumes(ctx)
	if err != nil {
		return restored, err
	}
	for _, rec := range c.Records[1:] {
		result, err := r.object(ctx, rec, volumes)
		if err != nil {
			return restored, err
		}
		restored.add(result)
	}
	if opts.Wait <= 0 {
		opts.Wait = time.Minute
	}
	return restored, r.settle(ctx, volumes, opts.Wait)
}

// damagedIs makes a refusal of what the API server has answered. Where it did not answer nothing is known.
func damagedIs(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// find reads the index that a name stands for.
func (a *Archive) find(ctx context.Context, name string) (*Info, error) {
	if strings.HasPrefix(name, namePrefix) {
		cm, err := a.configMaps().Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("%w: there is no archive %s", ErrRefused, name)
		}
		if err != nil {
			return nil, err
		}
		i, err := decodeIndex(cm)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRefused, err)
		}
		return i, nil
	}
	indexes, err := a.indexes(ctx)
	if err != nil {
		return nil, err
	}
	var newest *Info
	for n := range indexes {
		if indexes[n].Labels[lifecycle.LabelArchive] != name {
			continue
		}
		i, err := decodeIndex(&indexes[n])
		if err != nil {
			return nil, fmt.Errorf("%w: %w; name another archive to restore that", ErrRefused, err)
		}
		if newest == nil || i.SavedAt.After(newest.SavedAt) {
			newest = i
		}
	}
	if newest == nil {
		return nil, fmt.Errorf("%w: there is no complete archive of namespace %q", ErrRefused, name)
	}
	return newest, nil
}

// restorer is one restore under way.
type restorer struct {
	*Archive
	info     *Info
	content  *content
	dryRun   bool
	restored *Restored

	// nothing is set where the namespace does not exist and a dry run does not create it.
	nothing bool
}

// marks are what a reaper noted on a namespace that it was about to delete.
var marks = []string{
	lifecycle.AnnotationReaping, lifecycle.AnnotationSightings, lifecycle.AnnotationIdleSince, lifecycle.AnnotationUnhealthy,
	lifecycle.AnnotationPhase, lifecycle.AnnotationDrift,
}

// namespace makes it, or finds the one that an earlier run made.
func (r *restorer) namespace(ctx context.Context) error {
	namespaces := r.options.Dynamic.Resource(namespaceKind.GVR())
	result := Result{Kind: namespaceKind.Kind, Name: r.info.Namespace, Outcome: Created}
	live, err := namespaces.Get(ctx, r.info.Namespace, metav1.GetOptions{})
	if err == nil {
		result.Outcome = Exists
		r.restored.add(result)
		return r.adopt(ctx, live)
	}
	if !apierrors.IsNotFound(err) {
		return err
	}
	r.restored.add(result)
	if r.dryRun {
		r.nothing = true
	}
	o := &unstructured.Unstructured{Object: r.content.Records[0].Object}
	o = o.DeepCopy()
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[lifecycle.AnnotationRestoredFrom] = r.info.Name
	annotations[lifecycle.AnnotationLastPodActivity] = stamp(r.options.Now())
	o.SetAnnotations(annotations)
	if !r.dryRun {
		if _, err = namespaces.Create(ctx, o, metav1.CreateOptions{}); err != nil {
			r.restored.Results = nil
			return err
		}
	}
	r.restored.Labels, r.restored.Annotations = o.GetLabels(), annotations
	return nil
}

// adopt goes on in a namespace that is there, if it is the archived one or was made of its archive, and takes a reaper's marks off it.
func (r *restorer) adopt(ctx context.Context, live *unstructured.Unstructured) error {
	name, annotations := live.GetName(), live.GetAnnotations()
	if live.GetDeletionTimestamp() != nil {
		return fmt.Errorf("%w: namespace %s is still being deleted; try again when it is gone", ErrRefused, name)
	}
	if live.GetUID() != r.info.UID && annotations[lifecycle.AnnotationRestoredFrom] != r.info.Name {
		return fmt.Errorf("%w: there is a namespace %s, with UID %s, that is neither the archived one, which had UID %s, nor restored from archive %s; "+
			"remove it first", ErrRefused, name, live.GetUID(), r.info.UID, r.info.Name)
	}
	r.restored.Labels, r.restored.Annotations = live.GetLabels(), annotations
	marked := slices.ContainsFunc(marks, func(m string) bool { _, is := annotations[m]; return is })
	if !marked {
		return nil
	}
	change := map[string]any{lifecycle.AnnotationLastPodActivity: stamp(r.options.Now())}
	for _, m := range marks {
		change[m] = nil
		delete(annotations, m)
	}
	if r.dryRun {
		return nil
	}
	return r.patchNamespace(ctx, live, change)
}

// object makes one, but a claim whose volume is gone.
func (r *restorer) object(ctx context.Context, rec record, volumes []keptVolume) (Result, error) {
	o := (&unstructured.Unstructured{Object: rec.Object}).DeepCopy()
	result := Result{Kind: o.GetKind(), Name: o.GetName(), Outcome: Created}
	k, known := kindNamed(o.GetKind())
	if !known {
		result.Outcome, result.Detail = Failed, "this version does not know the kind"
		return result, nil
	}
	if o.GetKind() == kindClaim {
		if v := volumeOf(volumes, o.GetName()); v != nil {
			if v.problem != nil {
				result.Outcome, result.Detail = Failed, v.problem.Error()+"; create the claim yourself to begin with an empty volume"
				return result, nil
			}
			if err := unstructured.SetNestedField(o.Object, v.Name, "spec", "volumeName"); err != nil {
				return result, err
			}
		}
	}
	objects := r.options.Dynamic.Resource(k.GVR()).Namespace(r.info.Namespace)
	if !r.nothing {
		live, err := objects.Get(ctx, o.GetName(), metav1.GetOptions{})
		switch {
		case err == nil:
			return existing(live, rec, result), nil
		case !apierrors.IsNotFound(err):
			return failure(result, err)
		}
	}
	if rec.WithoutValues && len(rec.Keys) > 0 {
		result.Outcome, result.Keys = ValuesMissing, rec.Keys
		result.Detail = "its values were not kept: create it with them"
		return result, nil
	}
	if r.dryRun {
		return result, nil
	}
	_, err := objects.Create(ctx, o, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		result.Outcome = Exists
		return result, nil
	}
	return failure(result, err)
}

// existing judges what is there already.
func existing(live *unstructured.Unstructured, rec record, result Result) Result {
	result.Outcome = Exists
	if live.GetDeletionTimestamp() != nil {
		result.Outcome, result.Detail = Failed, "it is still being deleted; try again when it is gone"
		return result
	}
	data, _, _ := unstructured.NestedMap(live.Object, "data")
	for _, key := range rec.Keys {
		if _, there := data[key]; !there {
			result.Outcome, result.Detail = ValuesMissing, "its values were not kept: add them"
			result.Keys = append(result.Keys, key)
		}
	}
	return result
}

// failure is the result of an error that the API server answered. Any other ends the restore.
func failure(result Result, err error) (Result, error) {
	if err == nil {
		return result, nil
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return result, err
	}
	result.Outcome, result.Detail = Failed, err.Error()
	return result, nil
}
