package offline

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/offline/manifest"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// madeOf says of which kind the objects are that the controllers of well-known custom kinds make of their Pod
// templates. Of a kind that is not listed that is not known.
var madeOf = map[schema.GroupKind]string{
	{Group: "agents.x-k8s.io", Kind: "Sandbox"}:                  "Pod",
	{Group: "apps.kruise.io", Kind: "CloneSet"}:                  "Pod",
	{Group: "apps.kruise.io", Kind: "StatefulSet"}:               "Pod",
	{Group: "argoproj.io", Kind: "Rollout"}:                      "ReplicaSet",
	{Group: "jobset.x-k8s.io", Kind: "JobSet"}:                   "Job",
	{Group: "keda.sh", Kind: "ScaledJob"}:                        "Job",
	{Group: "kubeflow.org", Kind: "PyTorchJob"}:                  "Pod",
	{Group: "leaderworkerset.x-k8s.io", Kind: "LeaderWorkerSet"}: "StatefulSet",
	{Group: "ray.io", Kind: "RayCluster"}:                        "Pod",
	{Group: "serving.knative.dev", Kind: "Configuration"}:        "Deployment",
	{Group: "serving.knative.dev", Kind: "Revision"}:             "Deployment",
	{Group: "serving.knative.dev", Kind: "Service"}:              "Deployment",
}

// ruleWorkloadKind is the rule by which a kind may run in a namespace.
const ruleWorkloadKind = "workload-kind"

// isCustom says whether the object is of a custom kind, whose API group is a domain.
func isCustom(o *manifest.Object) bool { return o.Err == nil && strings.Contains(o.GVK.Group, ".") }

// checkCustom looks for Pod templates in an object that the webhook does not look at, and judges the Pods that its
// controller will make of them. The verdict stays as it is where there are none.
func (j *Judge) checkCustom(o *manifest.Object, v *Verdict) {
	specs := podSpecs(o.JSON)
	if len(specs) == 0 {
		return
	}
	v.Namespace = j.namespaceOf(o)
	profile := j.Policy.Profile(v.Namespace)
	if profile == nil {
		v.Warnings = append(v.Warnings, j.uncovered(o, v.Namespace))
		return
	}
	made := madeOf[o.GVK.GroupKind()]
	v.Warnings = append(v.Warnings, Finding{Field: "kind", Line: o.Line("kind"), Message: customWarning(o.GVK.Kind, made, profile)})
	for _, spec := range specs {
		v.Reasons = appendNew(v.Reasons, j.checkPodSpec(o, v, profile, made, spec)...)
	}
	if len(v.Reasons) > 0 {
		v.Outcome = DeniedAsPods
	}
}

func customWarning(kind, made string, profile *policy.Profile) string {
	text := fmt.Sprintf("a %s is not judged itself; its Pods are, when they are made, by the profile %q", kind, profile.Name())
	if made == "" {
		text += ": they are refused unless its controller makes them by way of a " + strings.Join(profile.AllowedKinds(), " or ")
	}
	return text
}

// checkPodSpec returns what is refused of the Pods that come of a spec, and appends to the verdict's warnings.
//
// The kind is judged by what the controller is known to make. The spec is judged as a Pod's that a workload
// controller makes, with what would be injected into a Deployment unless it becomes a Job: so what is refused is
// refused on any other way, too.
func (j *Judge) checkPodSpec(o *manifest.Object, v *Verdict, profile *policy.Profile, made string, found podSpec) []Finding {
	d, failure := found.deployment(o, v.Namespace)
	if failure != nil {
		path := manifest.FieldPath(found.Pointer)
		v.Warnings = append(v.Warnings, Finding{Field: path, Line: o.Line(path),
			Message: "looks like a Pod's spec and cannot be read as one: " + strings.Replace(failure.Error(), "spec.template.spec", path, 1)})
		return nil
	}
	if injector := j.Policy.Injector(v.Namespace); made != "Job" {
		injector.Deployment(d, nil, inject.Options{RestartRules: true})
	}
	object := &workload.Object{Kind: "Pod", Meta: &d.Spec.Template.ObjectMeta, Template: &workload.Template{
		Path: found.templatePath(), Meta: &d.Spec.Template.ObjectMeta, Spec: &d.Spec.Template.Spec,
	}}
	request := policy.Request{Operation: admissionv1.Create, Namespace: v.Namespace, Name: o.Name, Object: object}

	var kindDenials []Finding
	if made != "" {
		asMade, asKind := request, *object
		asKind.Kind = made
		asMade.Object, asMade.User = &asKind, authenticationv1.UserInfo{Username: "the controller of a " + o.GVK.Kind}
		review := j.Policy.Review(&asMade)
		ofKind := func(f policy.Violation) bool { return f.Rule != ruleWorkloadKind }
		kindDenials = asFindings(o, slices.DeleteFunc(review.Denials, ofKind))
		v.Warnings = appendNew(v.Warnings, asFindings(o, slices.DeleteFunc(review.Warnings, ofKind))...)
	}
	request.User = authenticationv1.UserInfo{Username: profile.Controller()}
	review := j.Policy.Review(&request)
	v.Warnings = appendNew(v.Warnings, asFindings(o, review.Warnings)...)
	return append(kindDenials, asFindings(o, review.Denials)...)
}

// templatePath is what workload.Template.Path is to be, so that fields of the template are where they stand in the
// object.
func (p *podSpec) templatePath() string {
	return strings.TrimSuffix(strings.TrimSuffix(manifest.FieldPath(p.Pointer), "spec"), ".")
}

// deployment is one with the template. Containers that have no names, as Knative's may, get some.
func (p *podSpec) deployment(o *manifest.Object, namespace string) (*appsv1.Deployment, *manifest.Error) {
	template := map[string]any{"spec": p.Spec}
	if metadata, ok := p.Template["metadata"]; ok {
		template["metadata"] = metadata
	}
	data, err := json.Marshal(map[string]any{
		"metadata": map[string]string{"name": o.Name, "namespace": namespace},
		"spec":     map[string]any{"template": template},
	})
	if err != nil {
		return nil, &manifest.Error{Message: err.Error()}
	}
	decoded, err := workload.Decode(appsv1.SchemeGroupVersion.WithKind("Deployment"), data)
	if err != nil {
		return nil, o.DecodeError(err)
	}
	for i, c := range decoded.Template.Containers() {
		if c.Name == "" {
			c.Name = fmt.Sprintf("container-%d", i+1)
		}
	}
	return decoded.Deployment, nil
}

// appendNew appends those findings that are not there yet.
func appendNew(all []Finding, more ...Finding) []Finding {
	for _, f := range more {
		if !slices.Contains(all, f) {
			all = append(all, f)
		}
	}
	return all
}
