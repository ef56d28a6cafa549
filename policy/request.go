package policy

import (
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Request is one request to store an object, decoded.
type Request struct {
	Operation admissionv1.Operation
	Namespace string
	Name      string

	// Subresource as in the admission request: "", scale, resize, ephemeralcontainers.
	Subresource string

	User authenticationv1.UserInfo

	// Object is what would be stored. For a Deployment that is the object after injection. Nil at DELETE.
	Object *workload.Object

	// Old is what is stored now; nil at CREATE.
	Old *workload.Object

	// Deletion holds the options of a DELETE; nil otherwise. Of a deletecollection every object is a DELETE of its own,
	// with an empty Name.
	Deletion *metav1.DeleteOptions

	// Facts of the cluster. Nil where there is no cluster to ask: what cannot be known then is not judged, and
	// Verdict.Unchecked says so.
	Facts *Facts

	// RuleTimes says since when rules of the namespace's profile are enforced, by their ids. A rule without an entry has
	// always been.
	RuleTimes map[string]RuleTime
}

// Facts are what a verdict needs to know of the cluster. Needs says which of them a request takes.
type Facts struct {
	// Now is when the facts were gathered.
	Now metav1.Time

	// Caller is the Pod that sends the request. Nil unless asked for.
	Caller *Caller

	// Deployments holds an entry for every Deployment that was asked for, nil where there is none of that name.
	Deployments map[string]*Owner

	// Owner is the workload that a Pod, ReplicaSet or Job stands for, found by following controller references of
	// matching UID to their end. Nil if there is none: no reference, or one that leads nowhere.
	Owner *Owner

	// Claims holds an entry for every claim that was asked for, and for each that carries the label of the Deployment
	// that was asked for.
	Claims map[string]Claim
}

// Caller is what is known of the Pod that a caller's token is bound to.
type Caller struct {
	// Pod is the Pod of the name in the token, read live, whichever UID it has. Nil: there is none.
	Pod *corev1.Pod

	// Owner is the workload that the Pod stands for, as in Facts. Nil if there is none.
	Owner *Owner
}

// Owner is the workload at the end of a chain of controller references.
type Owner struct {
	// Kinds is the chain, nearest first: ReplicaSet, Deployment for an agent's Pod.
	Kinds []string

	Name    string
	UID     types.UID
	Labels  map[string]string
	Created metav1.Time

	// Protection holds the marks by which somebody protects the owner.
	Protection []lifecycle.ProtectionMark

	// AgentContainer names the container that runs the agent in the owner's Pod template. Empty: it cannot be told.
	AgentContainer string

	// Sidecar is the container under the sidecar's name in the owner's Pod template. Nil if there is none.
	Sidecar *corev1.Container

	// Volumes are those under the system's names in the owner's Pod template.
	Volumes []corev1.Volume
}

// Kind is the kind of the workload itself, the last of the chain.
func (o *Owner) Kind() string {
	if o == nil || len(o.Kinds) == 0 {
		return ""
	}
	return o.Kinds[len(o.Kinds)-1]
}

// Claim is what is known of a PersistentVolumeClaim.
type Claim struct {
	Exists bool

	// Deployment and UserType are the claim's labels of these names.
	Deployment string
	UserType   string

	// MountedBy names the Deployments of the namespace whose template mounts the claim, sorted.
	MountedBy []string

	// Owners are the claim's owner references: it goes when they have all gone.
	Owners []metav1.OwnerReference

	// Protection holds the marks by which somebody protects the claim.
	Protection []lifecycle.ProtectionMark
}

// Needs says which facts a verdict on r takes.
type Needs struct {
	Owner  bool
	Claims []string

	// Caller asks for Facts.Caller.
	Caller bool

	// ClaimsOf asks for the claims that carry this Deployment's label. Empty: none.
	ClaimsOf string

	// Deployments are asked for by name.
	Deployments []string
}

// None says that nothing is needed.
func (n Needs) None() bool {
	return !n.Owner && !n.Caller && n.ClaimsOf == "" && len(n.Claims) == 0 && len(n.Deployments) == 0
}
