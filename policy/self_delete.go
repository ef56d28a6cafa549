package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// An agent deletes itself and nothing else. Accounts of agent namespaces, which the sidecars use, may delete a Deployment
// or a claim only if all of this holds:
//
//   - the token is bound to a Pod (KEP-2799), which exists with the UID in the token. The API server vouches for both; a
//     name alone could be a successor's;
//   - that Pod is controlled by a ReplicaSet that is controlled by the very Deployment, by UID. A name proves nothing:
//     agent-a-b begins like agent-a;
//   - the Deployment's tier shuts down, and for a claim deletes storage;
//   - nobody protects it with do-not-reap or do-not-reap-until, neither the Deployment nor the claim;
//   - the kubelet reports that the agent ended with 42: see exit_proof.go. What the sidecar or a file says is not asked;
//   - nobody has asked for another Pod since, by a change of the Deployment or by deleting this one;
//   - it is one DELETE by name that leaves nothing behind. Orphaned ReplicaSets would run agents that nobody owns.
//
// Everybody else, people and the garbage collector among them, is the business of RBAC.
var selfDelete = Rule{
	ID:          "self-delete",
	Summary:     "an agent deletes what is its own, after it ended because it was idle, and nothing else",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.SelfDelete.Enforcement },
	deletions:   true,
	applies:     func(r *Request) bool { return r.Operation == admissionv1.Delete },
	check: func(p *Profile, r *Request) []Violation {
		if !p.isAgentAccount(r) {
			return nil
		}
		return p.checkSelfDelete(r)
	},
}

// isAgentAccount says whether the user is a service account of a namespace that holds agents, of this profile or another.
func (p *Profile) isAgentAccount(r *Request) bool {
	return p.policy.Profile(accountNamespace(r.User.Username)) != nil
}

// accountNamespace is the namespace of a service account; empty for other users.
func accountNamespace(user string) string {
	account, ok := strings.CutPrefix(user, "system:serviceaccount:")
	if !ok {
		return ""
	}
	namespace, _, _ := strings.Cut(account, ":")
	return namespace
}

// CallerPod returns the Pod that the user's token is bound to. The error says why there is none.
func CallerPod(r *Request) (name, uid string, err error) {
	names, uids := r.User.Extra[lifecycle.ExtraPodName], r.User.Extra[lifecycle.ExtraPodUID]
	if len(names) != 1 || len(uids) != 1 || names[0] == "" || uids[0] == "" {
		return "", "", fmt.Errorf("%s has no token that is bound to a Pod; an agent deletes itself with the token of its sidecar",
			userName(r))
	}
	return names[0], uids[0], nil
}

func (p *Profile) checkSelfDelete(r *Request) []Violation {
	if found := checkManner(r); len(found) > 0 {
		return found
	}
	name, uid, err := CallerPod(r)
	if err != nil {
		return []Violation{violation("", "%v", err)}
	}
	if account := accountNamespace(r.User.Username); account != r.Namespace {
		return []Violation{violation("metadata.namespace", "%s deletes nothing in namespace %q; its own is %q", userName(r),
			r.Namespace, account)}
	}
	if r.Facts == nil {
		return nil
	}
	caller := r.Facts.Caller
	if caller == nil || caller.Pod == nil {
		return []Violation{violation("", "Pod %q, to which the token is bound, does not exist any more", name)}
	}
	if string(caller.Pod.UID) != uid {
		// Its own UID is not told: the request may come from anybody who knows a Pod's name.
		return []Violation{violation("", "Pod %q is a later one of that name, but the token is bound to one of UID %q", name, uid)}
	}
	if v, ok := checkOwn(r); !ok {
		return []Violation{v}
	}
	if found := p.checkTier(r); len(found) > 0 {
		return found
	}
	if found := checkReplaced(r); len(found) > 0 {
		return found
	}
	_, found := p.exitProof(r.Facts)
	found = append(found, checkProtection(r)...)
	return append(found, p.checkKeptClaims(r)...)
}

// checkProtection keeps what somebody protects. Protection is taken off, or ends: so the answer is "not yet".
func checkProtection(r *Request) []Violation {
	var found []Violation
	protects := func(what, name string, marks []lifecycle.ProtectionMark) {
		if reason := lifecycle.Protection(marks, r.Facts.Now.Time); reason != "" {
			v := violation("", "%s %q is protected, also from its own idleness: %s", what, name, reason)
			v.Wait = WaitForChange
			found = append(found, v)
		}
	}
	old := r.Old.Meta
	protects(r.Old.Kind, old.Name, lifecycle.ProtectionMarks(old.Labels, old.Annotations))
	// An agent that stays keeps its claims.
	if owner := r.Facts.Caller.Owner; r.Old.Claim != nil {
		protects(kindDeployment, owner.Name, owner.Protection)
	}
	return found
}

// checkManner judges how the deletion is asked for.
func checkManner(r *Request) []Violation {
	var found []Violation
	if r.Name == "" {
		found = append(found, violation("", "an agent deletes objects by name, never as a collection"))
	}
	if o := r.Deletion; o != nil {
		if o.PropagationPolicy != nil && *o.PropagationPolicy == metav1.DeletePropagationOrphan {
			found = append(found, violation("propagationPolicy", `is "Orphan", which would leave the agent's Pods behind; `+
				`accepted are "Foreground" and "Background"`))
		}
		//nolint:staticcheck // Deprecated, and still obeyed by the API server.
		if o.OrphanDependents != nil && *o.OrphanDependents {
			found = append(found, violation("orphanDependents", "is true, which would leave the agent's Pods behind"))
		}
	}
	if slices.Contains(r.Old.Meta.Finalizers, metav1.FinalizerOrphanDependents) {
		found = append(found, violation("metadata.finalizers", "hold %q, by which the agent's Pods would be left behind",
			metav1.FinalizerOrphanDependents))
	}
	return found
}

// checkOwn asks whether the object is the caller's: its Deployment, or a claim of that.
func checkOwn(r *Request) (Violation, bool) {
	pod, owner := r.Facts.Caller.Pod, r.Facts.Caller.Owner
	if !slices.Equal(ownerKinds(owner), []string{kindReplicaSet, kindDeployment}) {
		return violation("", "Pod %q is not controlled by a ReplicaSet of a Deployment that exists, so it is no agent's", pod.Name), false
	}
	const key = lifecycle.LabelDeployment
	if pod.Labels[key] != owner.Name {
		return violation("", "label %s of Pod %q %s, must be %q, its Deployment", key, pod.Name, isLabel(pod.Labels, key), owner.Name), false
	}
	old := r.Old.Meta
	field := labelField("metadata", key)
	switch {
	case r.Old.Deployment != nil && owner.UID != old.UID && owner.Name == old.Name:
		return violation("metadata.uid", "is %q, but the Deployment of Pod %q had %q; this one was made anew", old.UID, pod.Name,
			owner.UID), false
	case r.Old.Deployment != nil && owner.UID != old.UID:
		return violation("", "Deployment %q is not the one of Pod %q, which is %q; an agent deletes itself and nobody else",
			old.Name, pod.Name, owner.Name), false
	case old.Labels[key] != owner.Name:
		return violation(field, "%s, but the agent of Pod %q is %q", isLabel(old.Labels, key), pod.Name, owner.Name), false
	case r.Old.Deployment == nil && r.Old.Claim == nil:
		return violation("kind", "a %s may not be deleted by an agent; allowed: its Deployment, its claims", r.Old.Kind), false
	case r.Old.Claim == nil:
		return Violation{}, true
	}
	others := slices.DeleteFunc(slices.Clone(r.Facts.Claims[old.Name].MountedBy), func(d string) bool { return d == owner.Name })
	if len(others) > 0 {
		return violation("metadata.name", "claim %q is mounted by Deployment %s as well", old.Name, quoted(others)), false
	}
	return Violation{}, true
}

func ownerKinds(o *Owner) []string {
	if o == nil {
		return nil
	}
	return o.Kinds
}

// checkReplaced keeps an agent that somebody has just changed, moved or started again: its old Pod may have ended with 42, but
// the next one was asked for, and what was applied would be lost along with the Deployment. The generation does not tell: the
// API server may ask about a Deployment whose generation it has raised itself, to delete it.
func checkReplaced(r *Request) []Violation {
	if r.Old.Meta.DeletionTimestamp != nil {
		return nil
	}
	if pod := r.Facts.Caller.Pod; pod.DeletionTimestamp != nil {
		return []Violation{violation("", "Pod %q is being replaced, and the next one is not idle yet", pod.Name)}
	}
	return nil
}

// checkTier asks whether agents of this user type go at all, and whether their storage does.
func (p *Profile) checkTier(r *Request) []Violation {
	owner := r.Facts.Caller.Owner
	userType := p.userTypeOf(owner.Labels)
	if p.tiers[userType].Shutdown != v1alpha1.ShutdownWhenIdle {
		return []Violation{violation("", "Deployment %q is of user type %q, which never shuts down", owner.Name, userType)}
	}
	if r.Old.Claim == nil {
		return nil
	}
	if !p.deletesStorage(string(userType)) {
		return []Violation{violation("", "Deployment %q is of user type %q, whose storage is kept", owner.Name, userType)}
	}
	if kept := r.Old.Meta.Labels[lifecycle.LabelUserType]; kept != "" && !p.deletesStorage(kept) {
		return []Violation{violation(labelField("metadata", lifecycle.LabelUserType), "is %q, whose storage is kept", kept)}
	}
	return nil
}

// userTypeOf reads a Deployment's user type. Without a label it is the profile's default; what is no user type at all is
// of no tier, which keeps everything.
func (p *Profile) userTypeOf(labels map[string]string) lifecycle.UserType {
	if userType, ok := labels[lifecycle.LabelUserType]; ok {
		return lifecycle.UserType(userType)
	}
	return p.file.DefaultUserType
}

// checkKeptClaims holds a Deployment back while the garbage collector would take a claim along that is to be kept: after a
// raise of the user type, or since somebody protects the claim, until the reaper has removed the claim's owner reference.
func (p *Profile) checkKeptClaims(r *Request) []Violation {
	if r.Old.Deployment == nil {
		return nil
	}
	tierKeeps := !p.deletesStorage(string(p.userTypeOf(r.Old.Meta.Labels)))
	var found []Violation
	for _, name := range slices.Sorted(maps.Keys(r.Facts.Claims)) {
		claim := r.Facts.Claims[name]
		owned := slices.ContainsFunc(claim.Owners, func(o metav1.OwnerReference) bool { return o.UID == r.Old.Meta.UID })
		kept := tierKeeps || claim.UserType != "" && !p.deletesStorage(claim.UserType) ||
			lifecycle.Protection(claim.Protection, r.Facts.Now.Time) != ""
		if owned && kept {
			v := violation("", "claim %q is to be kept, but its owner reference to Deployment %q would take it along; "+
				"not before that has been removed", name, r.Old.Meta.Name)
			v.Wait = WaitForChange
			found = append(found, v)
		}
	}
	return found
}

func isSelfDelete(r *Request) bool {
	return r.Operation == admissionv1.Delete && r.Facts != nil && r.Facts.Caller != nil
}

// provenSelfDelete returns what speaks for a deletion, nil if something speaks against it: where the rule only warns, that
// is let pass, but it is not called proven.
func (p *Profile) provenSelfDelete(r *Request) *SelfDelete {
	if !p.isAgentAccount(r) || len(p.checkSelfDelete(r)) > 0 {
		return nil
	}
	proof, _ := p.exitProof(r.Facts)
	owner, pod := r.Facts.Caller.Owner, r.Facts.Caller.Pod
	return &SelfDelete{
		Deployment: owner.Name, DeploymentUID: owner.UID, UserType: p.userTypeOf(owner.Labels),
		Charge: r.Old.Deployment != nil && r.Old.Meta.DeletionTimestamp == nil,
		Pod:    pod.Name, PodUID: pod.UID, Container: proof.container, ContainerID: proof.exit.ContainerID,
		ExitCode: proof.exit.ExitCode, StartedAt: proof.exit.StartedAt, FinishedAt: proof.exit.FinishedAt,
	}
}

// needsOfDeletion says which facts a verdict on a DELETE takes: none, unless an agent asks for it.
func (p *Profile) needsOfDeletion(r *Request) Needs {
	if !p.isAgentAccount(r) || len(checkManner(r)) > 0 {
		return Needs{}
	}
	if _, _, err := CallerPod(r); err != nil || accountNamespace(r.User.Username) != r.Namespace {
		return Needs{}
	}
	needs := Needs{Caller: true}
	if r.Old.Deployment != nil {
		needs.ClaimsOf = r.Old.Meta.Name
	}
	if r.Old.Claim != nil {
		needs.Claims = []string{r.Old.Meta.Name}
	}
	return needs
}

// exit is how a run of the agent container ended, as the kubelet reports it.
type exit struct {
	container string
	exit      *corev1.ContainerStateTerminated
}

func stamp(t metav1.Time) string { return t.UTC().Format(time.RFC3339) }
