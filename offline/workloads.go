package offline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/json"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// workloads are the kinds that are judged: those that the webhook is registered for and that people write down.
var workloads = []kind{
	{appsv1.SchemeGroupVersion.WithKind("Deployment"), func() any { return new(appsv1.Deployment) }},
	{appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), func() any { return new(appsv1.ReplicaSet) }},
	{appsv1.SchemeGroupVersion.WithKind("StatefulSet"), func() any { return new(appsv1.StatefulSet) }},
	{appsv1.SchemeGroupVersion.WithKind("DaemonSet"), func() any { return new(appsv1.DaemonSet) }},
	{batchv1.SchemeGroupVersion.WithKind("Job"), func() any { return new(batchv1.Job) }},
	{batchv1.SchemeGroupVersion.WithKind("CronJob"), func() any { return new(batchv1.CronJob) }},
	{corev1.SchemeGroupVersion.WithKind("ReplicationController"), func() any { return new(corev1.ReplicationController) }},
	{corev1.SchemeGroupVersion.WithKind("Pod"), func() any { return new(corev1.Pod) }},
}

type kind struct {
	schema.GroupVersionKind
	typed func() any
}

// workloadGroups are the API groups that hold the workload kinds now or held them once. The same name in another group
// is another kind.
var workloadGroups = []string{"", "apps", "batch", "extensions"}

func isWorkload(o *manifest.Object) bool { return indexOf(o) >= 0 }

// indexOf returns the place of the object's kind in workloads, whatever its version. Negative if it is none of them.
func indexOf(o *manifest.Object) int {
	if !slices.Contains(workloadGroups, o.GVK.Group) {
		return -1
	}
	return slices.IndexFunc(workloads, func(k kind) bool { return k.Kind == o.GVK.Kind })
}

// subject is an object made ready to judge.
type subject struct {
	*workload.Object
	namespace string
	warnings  []Finding
}

// read decodes an object. It returns nil for an object that is no workload.
func (j *Judge) read(o *manifest.Object) (*subject, *manifest.Error) {
	if o.Err != nil {
		return nil, o.Err
	}
	i := indexOf(o)
	if i < 0 {
		return nil, nil
	}
	known := workloads[i]
	if known.GroupVersionKind != o.GVK {
		return nil, &manifest.Error{Field: "apiVersion", Line: o.Line("apiVersion"), Message: fmt.Sprintf(
			"a %s of %q is not understood; accepted: %s", o.GVK.Kind, o.GVK.GroupVersion(), known.GroupVersion())}
	}
	decoded, err := workload.Decode(o.GVK, o.JSON)
	if err != nil {
		return nil, o.DecodeError(err)
	}
	if o.Name == "" && o.GenerateName == "" {
		return nil, &manifest.Error{Field: "metadata.name", Line: o.Line("metadata"), Message: "a name is required"}
	}
	s := &subject{Object: decoded, namespace: j.namespaceOf(o), warnings: unknownFields(o, known.typed())}
	if j.Policy.Profile(s.namespace) == nil {
		s.warnings = append(s.warnings, j.uncovered(o, s.namespace))
	}
	return s, nil
}

// uncovered warns that nothing is judged in the object's namespace.
func (j *Judge) uncovered(o *manifest.Object, namespace string) Finding {
	const field = "metadata.namespace"
	return Finding{Field: field, Line: o.Line(field), Message: fmt.Sprintf(
		"no profile of the policy covers namespace %q, so the webhook leaves it alone; covered are %s", namespace, coverage(j.Policy))}
}

// inject brings the subject to what would be stored, if it is a Deployment of an agent.
func (j *Judge) inject(o *manifest.Object, s *subject) patch {
	injector := j.Policy.Injector(s.namespace)
	if injector == nil || s.Deployment == nil {
		return nil
	}
	operations, warnings := injector.Deployment(s.Deployment, nil, inject.Options{RestartRules: true})
	for _, w := range warnings {
		s.warnings = append(s.warnings, Finding{Line: o.Line(""), Message: w})
	}
	return operations
}

func (j *Judge) namespaceOf(o *manifest.Object) string {
	if o.Namespace != "" {
		return o.Namespace
	}
	return j.Namespace
}

// unknownFields says what the API server would pass over, mostly misspelt names. A field that is newer than this
// program is among them, hence warnings.
func unknownFields(o *manifest.Object, typed any) []Finding {
	strict, err := json.UnmarshalStrict(o.JSON, typed, json.DisallowUnknownFields)
	if err != nil {
		return nil // Decoding it already succeeded; what differs between the decoders is not for a warning to say.
	}
	var found []Finding
	for _, e := range strict {
		f := Finding{Line: o.Line(""), Message: e.Error()}
		var field json.FieldError
		if errors.As(e, &field) {
			f.Line = o.Line(field.FieldPath())
		}
		found = append(found, f)
	}
	return found
}

// coverage names the namespaces that the policy's profiles cover.
func coverage(p *policy.Policy) string {
	var names []string
	for _, profile := range p.Profiles() {
		for _, name := range profile.Namespaces().Names {
			names = append(names, fmt.Sprintf("%q", name))
		}
		for _, prefix := range profile.Namespaces().Prefixes {
			names = append(names, fmt.Sprintf("%q", prefix+"*"))
		}
		for _, name := range profile.Namespaces().Except {
			names = append(names, fmt.Sprintf("but not %q", name))
		}
	}
	return strings.Join(names, ", ")
}
