package reaper

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// change is what becomes of an object's metadata; nil is nothing.
type change struct {
	owners []metav1.OwnerReference
	labels map[string]string
}

// decideClaim says what an agent's claim should look like. mountedBy names the Deployments that mount it.
//
// Where the user type deletes storage the claim is owned by the Deployment and goes with it. Where the Deployment or the claim
// keeps storage it is not, and the claim's user type is raised to the Deployment's: in one step, since a claim that is to be
// kept must at no time be one that goes. A claim that somebody protects is not owned either: the garbage collector knows no
// protection. A claim that another Deployment mounts, or that is not this agent's, is left alone.
func decideClaim(a *agent, claim *dependent, mountedBy []string, now time.Time) *change {
	if claim.labels[lifecycle.LabelDeployment] != a.name || claim.deleting || !a.mounts(claim.name) {
		return nil
	}
	if slices.ContainsFunc(mountedBy, func(d string) bool { return d != a.name }) {
		return nil
	}
	promised, has := claim.labels[lifecycle.LabelUserType]
	wanted := change{owners: claim.owners, labels: maps.Clone(claim.labels)}
	switch {
	case !a.deletesStorage():
		wanted.owners = without(a, claim.owners)
		if !has || !a.keeps(promised) {
			wanted.labels[lifecycle.LabelUserType] = string(a.userType)
		}
	case has && a.keeps(promised):
		wanted.owners = without(a, claim.owners)
	default:
		wanted.owners = with(a, claim.owners)
		if lifecycle.Protection(claim.protected, now) != "" {
			wanted.owners = without(a, claim.owners)
		}
		if !has {
			wanted.labels[lifecycle.LabelUserType] = string(a.userType)
		}
	}
	return wanted.unless(claim)
}

// decideService says what an agent's Service should look like: it goes with the agent, whatever the user type. It is known by
// the label alone; a selector may select the Pods of many agents.
func decideService(a *agent, service *dependent) *change {
	if service.labels[lifecycle.LabelDeployment] != a.name || service.deleting {
		return nil
	}
	wanted := change{owners: with(a, service.owners), labels: service.labels}
	return wanted.unless(service)
}

// unless returns nil if the object is as it should be.
func (c *change) unless(o *dependent) *change {
	if maps.Equal(c.labels, o.labels) && len(c.owners) == len(o.owners) {
		return nil
	}
	return c
}

func isOwner(a *agent) func(metav1.OwnerReference) bool {
	return func(o metav1.OwnerReference) bool { return o.UID == a.uid }
}

// with adds the Deployment as an owner. It blocks the Deployment's deletion, so that the name stays taken until the object has
// gone and a quick return cannot meet what is dying.
func with(a *agent, owners []metav1.OwnerReference) []metav1.OwnerReference {
	if slices.ContainsFunc(owners, isOwner(a)) {
		return owners
	}
	return append(slices.Clone(owners), metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: "Deployment", Name: a.name, UID: a.uid, BlockOwnerDeletion: new(true),
	})
}

func without(a *agent, owners []metav1.OwnerReference) []metav1.OwnerReference {
	return slices.DeleteFunc(slices.Clone(owners), isOwner(a))
}

// patch is a merge patch that the API server takes for the very object that was decided on, and as it was then.
func (c *change) patch(uid types.UID, resourceVersion string) ([]byte, error) {
	owners := c.owners
	if owners == nil {
		owners = []metav1.OwnerReference{}
	}
	return json.Marshal(map[string]any{"metadata": map[string]any{
		"uid": uid, "resourceVersion": resourceVersion, "ownerReferences": owners, "labels": c.labels,
	}})
}
