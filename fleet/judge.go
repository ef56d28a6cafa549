package fleet

import (
	"fmt"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	psaapi "k8s.io/pod-security-admission/api"
	psa "k8s.io/pod-security-admission/policy"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Judge says what a policy makes of what is stored. It changes nothing that it is given.
type Judge struct {
	policy      *policy.Policy
	file        *v1alpha1.LifecyclePolicy
	options     inject.Options
	podSecurity psa.Evaluator

	// times says since when the rules of a profile are enforced; nil: they have always been. See Hold.
	times func(profile string) map[string]policy.RuleTime
}

// NewJudge returns a Judge by a policy file. restartRules says that the API server keeps container restart rules. An error lists every
// mistake in the file.
func NewJudge(file []byte, restartRules bool) (*Judge, error) {
	decoded, err := v1alpha1.Decode(file)
	if err != nil {
		return nil, err
	}
	p, err := policy.New(decoded)
	if err != nil {
		return nil, err
	}
	podSecurity, err := psa.NewEvaluator(psa.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("pod security checks: %w", err)
	}
	return &Judge{policy: p, file: decoded, options: inject.Options{RestartRules: restartRules}, podSecurity: podSecurity}, nil
}

// withoutRestartRules returns a Judge for an API server that drops them.
func (j *Judge) withoutRestartRules() *Judge {
	other := *j
	other.options.RestartRules = false
	return &other
}

// Covers says whether the policy has something to say in a namespace.
func (j *Judge) Covers(namespace string) bool { return j.policy.Profile(namespace) != nil }

// File is the policy file that it judges by.
func (j *Judge) File() *v1alpha1.LifecyclePolicy { return j.file }

// Covered names the namespaces that the policy covers, for a message.
func (j *Judge) Covered() string {
	var names []string
	for _, profile := range j.policy.Profiles() {
		n := profile.Namespaces()
		names = append(names, n.Names...)
		for _, prefix := range n.Prefixes {
			names = append(names, prefix+"*")
		}
		for _, name := range n.Except {
			names = append(names, "but not "+name)
		}
	}
	return strings.Join(names, ", ")
}

// SidecarImage is what agents get today; empty where they get none.
func (j *Judge) SidecarImage() string {
	if j.file.Sidecar.Mode == v1alpha1.SidecarNone {
		return ""
	}
	return j.file.Sidecar.Image
}

// NeedsClaims says whether a verdict in a namespace takes the facts of its claims.
func (j *Judge) NeedsClaims(namespace string) bool {
	probe := workload.FromDeployment(&appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{{VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "probe"},
		}}},
	}}}})
	needs := j.policy.Needs(&policy.Request{Operation: admissionv1.Create, Namespace: namespace, Object: probe})
	return len(needs.Claims) > 0
}

// Renewed returns a Deployment as it would be stored with today's injected parts, and whether its agent lacks any of
// them: that it was asked for, and what means the same to the agent's Pod, is no change.
func (j *Judge) Renewed(namespace string, stored *appsv1.Deployment) (renewed *appsv1.Deployment, changes bool) {
	renewed = stored.DeepCopy()
	if injector := j.policy.Injector(namespace); injector != nil {
		askAnew(renewed, stored.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt]+" and now")
		j.acceptEquivalents(renewed)
		patch, _ := injector.Deployment(renewed, stored, j.options)
		changes = len(patch) > 0
	}
	return renewed, changes
}

// askAnew makes the template ask for today's parts, unlike before.
func askAnew(d *appsv1.Deployment, when string) {
	if d.Spec.Template.Annotations == nil {
		d.Spec.Template.Annotations = map[string]string{}
	}
	d.Spec.Template.Annotations[lifecycle.AnnotationRenewedAt] = when
}

// Change says what would be said of the next change of a stored workload's template, by an ordinary user. Only a Deployment can be
// changed so in any case; of the other kinds it is what would be said of their creation.
func (j *Judge) Change(namespace string, o *workload.Object, claims map[string]policy.Claim) policy.Verdict {
	r := &policy.Request{
		Operation: admissionv1.Create, Namespace: namespace, Name: o.Meta.Name, Object: o, Facts: &policy.Facts{Claims: claims},
	}
	if o.Deployment != nil {
		renewed, _ := j.Renewed(namespace, o.Deployment)
		r.Operation, r.Object, r.Old = admissionv1.Update, workload.FromDeployment(renewed), o
	}
	return j.policy.Review(r)
}

// Return says what would be said of the next Pod of a stored workload, as its controller would make it after a crash of the node, say.
// The chain names the kinds of the controllers, nearest to the Pod first. labels are the namespace's: what its Pod Security level refuses
// is among the denials, as PodSecurityAdmission.
func (j *Judge) Return(namespace string, labels map[string]string, o *workload.Object, owner metav1.Object, chain []string,
	claims map[string]policy.Claim,
) policy.Verdict {
	meta := metav1.ObjectMeta{
		Namespace: namespace, Name: o.Meta.Name, Labels: o.Template.Meta.Labels, Annotations: o.Template.Meta.Annotations,
		OwnerReferences: []metav1.OwnerReference{{Kind: chain[0], Name: o.Meta.Name, Controller: new(true)}},
	}
	pod := &workload.Object{Kind: "Pod", Meta: &meta, Template: &workload.Template{Meta: &meta, Spec: o.Template.Spec}}
	r := &policy.Request{
		Operation: admissionv1.Create, Namespace: namespace, Name: meta.Name, Object: pod,
		Facts: &policy.Facts{Claims: claims, Owner: policy.OwnerOf(owner, chain...)}, RuleTimes: j.timesOf(namespace),
	}
	if controllers := j.file.Identities.Controllers; len(controllers) > 0 {
		r.User = authenticationv1.UserInfo{Username: controllers[0]}
	}
	v := j.policy.Review(r)
	v.Denials = append(v.Denials, j.podSecurityDenials(labels, pod.Template)...)
	return v
}

// PodSecurityAdmission stands in place of a rule for what the API server itself refuses by the labels of a namespace.
const PodSecurityAdmission = "pod-security.kubernetes.io"

func (j *Judge) podSecurityDenials(labels map[string]string, t *workload.Template) []policy.Violation {
	privileged := psaapi.LevelVersion{Level: psaapi.LevelPrivileged, Version: psaapi.LatestVersion()}
	// An unreadable label counts as the strictest level, there as here.
	level, _ := psaapi.PolicyToEvaluate(labels, psaapi.Policy{Enforce: privileged, Audit: privileged, Warn: privileged})
	var found []policy.Violation
	for _, result := range j.podSecurity.EvaluatePod(level.Enforce, t.Meta, t.Spec) {
		if result.Allowed {
			continue
		}
		detail := result.ForbiddenReason
		if result.ForbiddenDetail != "" {
			detail += " (" + result.ForbiddenDetail + ")"
		}
		found = append(found, policy.Violation{
			Rule: PodSecurityAdmission, Field: t.Field("spec"),
			Message: fmt.Sprintf("violates the namespace's level %s: %s", level.Enforce, detail),
		})
	}
	return found
}

// Sidecar is how an agent's sidecar compares with what is injected today.
type Sidecar string

// The values of Sidecar.
const (
	SidecarCurrent  Sidecar = "current"
	SidecarOutdated Sidecar = "outdated" // or one of the other injected parts is
	SidecarMissing  Sidecar = "missing"
)

// SidecarOf says how a Deployment's injected parts compare with today's, and which image its sidecar has.
func (j *Judge) SidecarOf(namespace string, d *appsv1.Deployment) (state Sidecar, image string) {
	if sidecar := policy.SidecarOf(d); sidecar != nil {
		image = sidecar.Image
	}
	_, changes := j.Renewed(namespace, d)
	switch {
	case !changes:
		return SidecarCurrent, image
	case image == "" && j.SidecarImage() != "":
		return SidecarMissing, ""
	}
	return SidecarOutdated, image
}

// Adopted says whether a Deployment was admitted: whoever lacks the label was there before the installation.
func Adopted(d *appsv1.Deployment) bool { return policy.Admitted(d.Name, d.Labels) }

// chainOf names the kinds of controllers from a workload's Pods up to it.
func chainOf(kind string) []string {
	switch kind {
	case "Deployment":
		return []string{"ReplicaSet", "Deployment"}
	case "CronJob":
		return []string{"Job", "CronJob"}
	case "Pod":
		return nil
	}
	return []string{kind}
}
