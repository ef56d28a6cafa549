package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// An agent mounts volumes of the types that the profile allows, and no claim but its own. A claim is its own if it
// carries the agent's deployment label and no other Deployment mounts it; a claim that does not exist yet, if its name
// is one that the profile gives to this agent and to no other. An agent whose tier deletes storage does not get at a
// claim that is labelled with a user type that keeps it.
//
// A volume of a type that this program does not know is refused, since nobody has judged what it reaches. So is an
// ephemeral claim that is filled from elsewhere: cloning a neighbour's claim is as good as mounting it. Devices are
// claimed from a template: a ResourceClaim of the namespace may be a neighbour's (KEP-4381).
var volumes = Rule{
	ID:          "volumes",
	Summary:     "volumes are of allowed types, and claims are the agent's own",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.Volumes.Enforcement },
	applies:     podsChange,
	check:       checkVolumes,
}

func checkVolumes(p *Profile, r *Request) []Violation {
	rule, template := p.file.Rules.Volumes, r.Object.Template
	var found []Violation
	for i := range template.Spec.Volumes {
		volume := &template.Spec.Volumes[i]
		if full(found) {
			return found
		}
		if p.isInjected(r, volume) {
			continue
		}
		field := fmt.Sprintf("%s[%d]", template.Field("spec.volumes"), i)
		kind := volumeType(&volume.VolumeSource)
		switch {
		case kind == "":
			found = append(found, violation(field, "volume %q is of no known type; allowed: %s",
				volume.Name, strings.Join(rule.Types, ", ")))
			continue
		case !slices.Contains(rule.Types, kind):
			found = append(found, violation(field+"."+kind, "volume %q may not be of type %s; allowed: %s",
				volume.Name, kind, strings.Join(rule.Types, ", ")))
			continue
		}
		if claim := volume.PersistentVolumeClaim; claim != nil {
			if problem := claimProblem(p, r, claim.ClaimName); problem != "" {
				found = append(found, violation(field+".persistentVolumeClaim.claimName", "volume %q: %s", volume.Name, problem))
			}
		}
		if volume.Ephemeral != nil && volume.Ephemeral.VolumeClaimTemplate != nil {
			spec := volume.Ephemeral.VolumeClaimTemplate.Spec
			if spec.DataSource != nil || spec.DataSourceRef != nil || spec.VolumeName != "" || spec.Selector != nil {
				found = append(found, violation(field+".ephemeral.volumeClaimTemplate.spec",
					"volume %q must begin empty: dataSource, dataSourceRef, selector and volumeName may not be set", volume.Name))
			}
		}
	}
	return append(found, checkResourceClaims(p, template)...)
}

func checkResourceClaims(p *Profile, template *workload.Template) []Violation {
	if allowsName(p.file.Rules.Volumes.Claims, "", anyName) {
		return nil
	}
	var found []Violation
	for i, claim := range template.Spec.ResourceClaims {
		if full(found) {
			return found
		}
		if claim.ResourceClaimName != nil {
			field := fmt.Sprintf("%s[%d].resourceClaimName", template.Field("spec.resourceClaims"), i)
			found = append(found, violation(field, "claim %q names ResourceClaim %q, which may be another agent's; "+
				"set resourceClaimTemplateName instead", claim.Name, *claim.ResourceClaimName))
		}
	}
	return found
}

// claimProblem says why a claim is not the agent's own; empty where it is, or where that cannot be known.
func claimProblem(p *Profile, r *Request, name string) string {
	patterns, agent := p.file.Rules.Volumes.Claims, agentOf(r)
	if allowsName(patterns, "", anyName) || r.Facts == nil {
		return ""
	}
	claim := r.Facts.Claims[name]
	if !claim.Exists {
		if allowsName(patterns, agent, name) {
			return ""
		}
		return fmt.Sprintf("claim %q does not exist, and only %s may be made later", name, namesFor(patterns, agent))
	}
	others := slices.DeleteFunc(slices.Clone(claim.MountedBy), func(d string) bool { return d == agent })
	switch {
	case claim.Deployment == "" && agent == "":
		return fmt.Sprintf("claim %q carries no label %s, and what is not an agent has no claims", name, lifecycle.LabelDeployment)
	case claim.Deployment == "":
		return fmt.Sprintf("claim %q carries no label %s; set it to %q if the claim is this agent's", name,
			lifecycle.LabelDeployment, agent)
	case claim.Deployment != agent:
		return fmt.Sprintf("claim %q belongs to Deployment %q; an agent mounts its own", name, claim.Deployment)
	case p.deletesStorage(r.Object.Meta.Labels[lifecycle.LabelUserType]) && p.keepsStorage(claim.UserType):
		return fmt.Sprintf("claim %q is kept for a user of type %q, but the agent's type %q deletes storage", name,
			claim.UserType, r.Object.Meta.Labels[lifecycle.LabelUserType])
	case len(others) > 0:
		return fmt.Sprintf("claim %q is mounted by Deployment %s as well; an agent shares none", name, quoted(others))
	}
	return ""
}

func (p *Profile) deletesStorage(userType string) bool {
	return p.tiers[lifecycle.UserType(userType)].Storage == v1alpha1.StorageDelete
}

// keepsStorage says whether a claim of this user type is to be kept. One without a user type was promised nothing;
// one that is no user type at all is of no tier, and may have been promised anything.
func (p *Profile) keepsStorage(userType string) bool {
	return userType != "" && !p.deletesStorage(userType)
}

// claimNames returns the claims that a Pod spec mounts, sorted, each once.
func claimNames(spec *corev1.PodSpec) []string {
	var names []string
	for _, volume := range spec.Volumes {
		if volume.PersistentVolumeClaim != nil {
			names = append(names, volume.PersistentVolumeClaim.ClaimName)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// volumeTypes are the API's names of the types of volumes, by field index in VolumeSource: read off the type, so that
// none is forgotten.
var volumeTypes = func() []string {
	source := reflect.TypeFor[corev1.VolumeSource]()
	names := make([]string, source.NumField())
	for i := range names {
		names[i], _, _ = strings.Cut(source.Field(i).Tag.Get("json"), ",")
	}
	return names
}()

func volumeType(source *corev1.VolumeSource) string {
	value := reflect.ValueOf(source).Elem()
	for i, name := range volumeTypes {
		if !value.Field(i).IsNil() {
			return name
		}
	}
	return ""
}
