package policy

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Agents run as the kinds of workload that the profile allows, and nothing runs beside them.
//
// Pods, and the ReplicaSets and Jobs between a workload and its Pods, are admitted from the cluster's workload
// controllers alone, and only where the chain of controller references ends at a living workload of an allowed kind.
// An owner reference that anybody else writes proves nothing: it would let a Pod pass for a neighbour's.
//
// A Job that an operator makes for an object of its own, such as a KEDA ScaledJob, a JobSet or a RayJob, is judged as one
// without a controller: nobody has judged the object that it was made of.
//
// Agents run on Linux: there is no sidecar for Windows, nor a read-only root file system. What asks for Windows is
// refused for that alone (os.name, a node selector, hostProcess), and not for each thing that it cannot have. Where
// the profile does not enforce read-only-rootfs, something else than an agent may run on Windows.
//
// Allowed: a Deployment; its ReplicaSet, made by the deployment controller; that one's Pod, made by the replicaset
// controller. Refused: a bare Pod; a Pod with a forged owner; a StatefulSet where the profile does not list it.
var workloadKind = Rule{
	ID:          "workload-kind",
	Summary:     "only workloads of allowed kinds, and Pods only from their controllers",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.WorkloadKind.Enforcement },
	decisive:    true,
	applies:     func(r *Request) bool { return r.Object.Template != nil },
	check:       checkWorkloadKind,
}

func checkWorkloadKind(p *Profile, r *Request) []Violation {
	if v, ok := checkNewOwner(p, r); ok {
		return []Violation{v}
	}
	allowed := p.file.Rules.WorkloadKind.Kinds
	switch {
	case r.Object.Kind == kindPod:
		return checkFromController(p, r, "create a Pod")
	case r.Object.Kind == kindReplicaSet:
		return checkReplicaSet(p, r)
	case isMadeByWorkload(r.Object):
		return checkFromController(p, r, "create a "+r.Object.Kind+" that has a controller")
	case r.Old != nil && !podsChange(r), slices.Contains(allowed, r.Object.Kind):
		return checkLinux(p, r)
	}
	return []Violation{violation("kind", "a %s may not run here; allowed: %s", r.Object.Kind, strings.Join(allowed, ", "))}
}

// checkNewOwner refuses a controller reference that was added or changed by hand.
func checkNewOwner(p *Profile, r *Request) (Violation, bool) {
	if r.Old == nil || p.isController(r) {
		return Violation{}, false
	}
	owner, before := metav1.GetControllerOf(r.Object.Meta), metav1.GetControllerOf(r.Old.Meta)
	if owner == nil || before != nil && owner.UID == before.UID {
		return Violation{}, false
	}
	return violation("metadata.ownerReferences", "%q may not make %s %q its controller; only workload controllers do that",
		r.User.Username, Printable(owner.Kind), owner.Name), true
}

// checkReplicaSet also holds its template fast, which is its Deployment's to change.
func checkReplicaSet(p *Profile, r *Request) []Violation {
	if r.Old == nil {
		return checkFromController(p, r, "create a ReplicaSet")
	}
	if p.isController(r) || workload.Equal(r.Object.Template, r.Old.Template) {
		return nil
	}
	return []Violation{violation(r.Object.Template.Path, "%s may not change the template of a ReplicaSet; change its Deployment",
		userName(r))}
}

func checkFromController(p *Profile, r *Request, what string) []Violation {
	if r.Old != nil {
		return nil // Who made it was judged when it was made.
	}
	if !p.isController(r) {
		return []Violation{violation("metadata.ownerReferences", "%s may not %s here; create a %s, and its controller does it",
			userName(r), what, strings.Join(p.file.Rules.WorkloadKind.Kinds, " or "))}
	}
	if r.Facts == nil {
		return checkLinux(p, r)
	}
	owner := r.Facts.Owner
	if owner == nil {
		return []Violation{violation("metadata.ownerReferences", "the %s belongs to no living workload: %s",
			r.Object.Kind, ownerReferences(r.Object.Meta))}
	}
	if found := checkLinux(p, r); found != nil {
		return found
	}
	kind := owner.Kind()
	if slices.Contains(p.file.Rules.WorkloadKind.Kinds, kind) || r.Object.Kind != kindPod && p.predates(owner) {
		return nil
	}
	return []Violation{violation("metadata.ownerReferences", "the %s belongs to %s %q, which may not run here; allowed: %s",
		r.Object.Kind, kind, owner.Name, strings.Join(p.file.Rules.WorkloadKind.Kinds, ", "))}
}

// checkLinux refuses what asks for Windows. Where the profile takes writable root file systems, something else than
// an agent may run there. What a Pod asks of its node was judged in its template.
func checkLinux(p *Profile, r *Request) []Violation {
	if !podsChange(r) || !isAgent(r) && p.file.Rules.ReadOnlyRootfs.Enforcement != v1alpha1.Enforce {
		return nil
	}
	t := r.Object.Template
	field, value := workload.WindowsPod(t.Spec)
	if field == "" && r.Object.Kind != kindPod {
		field, value = workload.WindowsNodes(t.Spec)
	}
	if field == "" {
		return nil
	}
	return []Violation{violation(t.Field("spec."+field), "%q asks for Windows, but what runs here runs on Linux; leave it out", value)}
}

// comesFromController lists the kinds that workload controllers make on the way from a workload to its Pods.
func comesFromController(kind string) bool {
	return kind == kindReplicaSet || kind == kindJob || kind == kindReplicationController
}

// isMadeByWorkload says whether a workload controller made the object out of another workload, which was judged: as far as
// its controller reference says.
func isMadeByWorkload(o *workload.Object) bool {
	owner := metav1.GetControllerOf(o.Meta)
	if owner == nil || !comesFromController(o.Kind) {
		return false
	}
	group, _ := schema.ParseGroupVersion(owner.APIVersion) // what cannot be parsed is of no group, and of no workload
	return workloadKinds[schema.GroupKind{Group: group.Group, Kind: owner.Kind}]
}

// workloadKinds are the kinds that make Pods, or what makes Pods, in whichever version.
var workloadKinds = map[schema.GroupKind]bool{
	{Group: "apps", Kind: kindDeployment}:        true,
	{Group: "apps", Kind: kindReplicaSet}:        true,
	{Group: "apps", Kind: "StatefulSet"}:         true,
	{Group: "apps", Kind: "DaemonSet"}:           true,
	{Group: "batch", Kind: kindJob}:              true,
	{Group: "batch", Kind: "CronJob"}:            true,
	{Group: "", Kind: kindReplicationController}: true,
	{Group: "", Kind: kindPod}:                   true,
}

func (p *Profile) isController(r *Request) bool {
	return slices.Contains(p.identities.Controllers, r.User.Username)
}

func userName(r *Request) string {
	if r.User.Username == "" {
		return "a user"
	}
	return fmt.Sprintf("%q", r.User.Username)
}

func ownerReferences(meta *metav1.ObjectMeta) string {
	owner := metav1.GetControllerOf(meta)
	if owner == nil {
		return "it has no controller reference"
	}
	return fmt.Sprintf("its controller reference to %s %q with UID %q leads nowhere", Printable(owner.Kind), owner.Name, owner.UID)
}
