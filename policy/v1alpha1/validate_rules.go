package v1alpha1

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/util/validation/field"
	podsecurity "k8s.io/pod-security-admission/api"
)

func validateRules(path *field.Path, p *Profile) field.ErrorList {
	r := &p.Rules
	errs := validateEnforcements(path, r)
	errs = append(errs, validateAllowlist(path.Child("image-allowlist", "images"), r.ImageAllowlist.Images)...)
	errs = append(errs, validatePodSecurity(path.Child("pod-security"), &r.PodSecurity)...)

	limits := path.Child("resource-limits")
	errs = append(errs, validateResourceNames(limits.Child("limits"), r.ResourceLimits.Limits)...)
	errs = append(errs, validateResourceNames(limits.Child("requests"), r.ResourceLimits.Requests)...)
	errs = append(errs, validateQuantities(limits.Child("max"), r.ResourceLimits.Max)...)

	volumes := path.Child("volumes")
	errs = append(errs, eachOneOf(volumes.Child("types"), r.Volumes.Types, volumeTypes())...)
	errs = append(errs, validatePatterns(volumes.Child("claims"), r.Volumes.Claims)...)

	references := path.Child("references")
	errs = append(errs, validatePatterns(references.Child("secrets"), r.References.Secrets)...)
	errs = append(errs, validatePatterns(references.Child("configMaps"), r.References.ConfigMaps)...)
	errs = append(errs, validatePatterns(references.Child("pullSecrets"), r.References.PullSecrets)...)
	for i, p := range r.References.PullSecrets { // they are Secrets as well
		errs = append(errs, validateDistinct(references.Child("pullSecrets").Index(i), p, r.References.Secrets)...)
	}
	errs = append(errs, validateDrivers(references.Child("csiDrivers"), r.References.CSIDrivers)...)

	if most := *r.Replicas.Max; most < 1 {
		errs = append(errs, field.Invalid(path.Child("replicas", "max"), most, "must be at least 1"))
	}
	errs = append(errs, validateServiceAccounts(path.Child("service-account"), p)...)
	errs = append(errs, validateObjectSize(path.Child("object-size"), &r.ObjectSize)...)

	kinds := path.Child("workload-kind", "kinds")
	if len(r.WorkloadKind.Kinds) == 0 {
		errs = append(errs, field.Required(kinds, "at least one; without any nothing could run"))
	}
	return append(errs, eachOneOf(kinds, r.WorkloadKind.Kinds, workloadKinds())...)
}

func validateEnforcements(path *field.Path, r *Rules) field.ErrorList {
	var errs field.ErrorList
	for _, rule := range r.all() {
		errs = append(errs, oneOf(path.Child(rule.id, "enforcement"), rule.Enforcement, enforcements())...)
	}
	return errs
}

func validatePodSecurity(path *field.Path, r *PodSecurity) field.ErrorList {
	errs := oneOf(path.Child("level"), podsecurity.Level(r.Level), podSecurityLevels())
	if _, err := podsecurity.ParseVersion(r.Version); err != nil {
		errs = append(errs, field.Invalid(path.Child("version"), r.Version, `must be a version such as v1.36, or "latest"`))
	}
	return errs
}

// validateServiceAccounts also holds the rule to what the profile injects: agents would be refused for it.
func validateServiceAccounts(path *field.Path, p *Profile) field.ErrorList {
	r := &p.Rules.ServiceAccounts
	names := path.Child("names")
	if len(r.Names) == 0 {
		return field.ErrorList{field.Required(names, "at least one; without any nothing could run")}
	}
	errs := validatePatterns(names, r.Names)
	injected := p.ServiceAccount.Name
	if injected != "" && !slices.Contains(r.Names, injected) && !slices.Contains(r.Names, Any) {
		errs = append(errs, field.Invalid(names, r.Names,
			fmt.Sprintf("must include the profile's serviceAccount name, %s", printable(injected))))
	}
	if mounts := p.ServiceAccount.MountToken; mounts != nil && *mounts && !*r.MountToken {
		errs = append(errs, field.Invalid(path.Child("mountToken"), *r.MountToken,
			"must be true, as the profile's serviceAccount mountToken is"))
	}
	return errs
}

// validateObjectSize also holds the rule to what is injected into every agent: all of them would be refused for it.
func validateObjectSize(path *field.Path, r *ObjectSize) field.ErrorList {
	const most = 10_000
	var errs field.ErrorList
	for _, bound := range []struct {
		name  string
		value int32
		least int32
	}{
		{"maxContainers", *r.MaxContainers, 2},
		{"maxVolumes", *r.MaxVolumes, 2},
		{"maxEnv", *r.MaxEnv, 20},
		{"maxVolumeMounts", *r.MaxVolumeMounts, 4},
	} {
		switch {
		case bound.value < bound.least:
			errs = append(errs, field.Invalid(path.Child(bound.name), bound.value, fmt.Sprintf("must be at least %d", bound.least)))
		case bound.value > most:
			errs = append(errs, field.Invalid(path.Child(bound.name), bound.value, fmt.Sprintf("must be at most %d", most)))
		}
	}
	return errs
}
