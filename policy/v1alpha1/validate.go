package v1alpha1

import (
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/policy/image"
)

// validateType returns errors if the tree is of another type altogether.
func validateType(tree map[string]any) field.ErrorList {
	var errs field.ErrorList
	if got, found := tree["apiVersion"]; found && got != APIVersion {
		errs = append(errs, field.NotSupported(field.NewPath("apiVersion"), fmt.Sprint(got), []string{APIVersion}))
	}
	if got, found := tree["kind"]; found && got != Kind {
		errs = append(errs, field.NotSupported(field.NewPath("kind"), fmt.Sprint(got), []string{Kind}))
	}
	return errs
}

// validate judges a file that has its defaults.
func validate(file *LifecyclePolicy) field.ErrorList {
	var errs field.ErrorList
	if file.APIVersion == "" {
		errs = append(errs, field.Required(field.NewPath("apiVersion"), "must be "+APIVersion))
	}
	if file.Kind == "" {
		errs = append(errs, field.Required(field.NewPath("kind"), "must be "+Kind))
	}
	errs = append(errs, validateRulesRevision(field.NewPath("rulesRevision"), file.RulesRevision)...)
	errs = append(errs, validateSidecar(field.NewPath("sidecar"), file)...)
	errs = append(errs, validateTiers(field.NewPath("tiers"), file.Tiers)...)
	errs = append(errs, validateIdle(field.NewPath("idle"), file)...)
	errs = append(errs, oneOf(field.NewPath("restartRules"), file.RestartRules, restartRules())...)
	errs = append(errs, validateSelfDelete(field.NewPath("selfDelete"), &file.SelfDelete)...)
	errs = append(errs, validateReaper(field.NewPath("reaper"), &file.Reaper)...)
	errs = append(errs, validateIdentities(field.NewPath("identities"), &file.Identities)...)
	return append(errs, validateProfiles(field.NewPath("profiles"), file.Profiles)...)
}

// validateRulesRevision refuses a later revision than this program's: the file counts on rules that it does not have.
func validateRulesRevision(path *field.Path, revision int32) field.ErrorList {
	if revision >= firstRulesRevision && revision <= RulesRevision {
		return nil
	}
	return field.ErrorList{field.Invalid(path, revision,
		fmt.Sprintf("must be from %d to %d", firstRulesRevision, RulesRevision))}
}

func validateSidecar(path *field.Path, file *LifecyclePolicy) field.ErrorList {
	s := &file.Sidecar
	errs := oneOf(path.Child("mode"), s.Mode, sidecarModes())
	errs = append(errs, validateSidecarImage(path.Child("image"), s.Image)...)
	if s.AcceptedImages != nil { // nil: there is no default without an image
		errs = append(errs, validateAcceptedImages(path.Child("acceptedImages"), s)...)
	}
	return append(errs, validateSidecarResources(path.Child("resources"), file)...)
}

func validateAcceptedImages(path *field.Path, s *Sidecar) field.ErrorList {
	if errs := validateAllowlist(path, s.AcceptedImages); len(errs) > 0 {
		return errs
	}
	accepted, err := image.ParseList(s.AcceptedImages)
	if err != nil {
		return field.ErrorList{field.InternalError(path, err)}
	}
	// Or the server would refuse what it injects.
	if _, err := image.Parse(s.Image); err == nil && accepted.Allows(s.Image) != nil {
		return field.ErrorList{field.Invalid(path, s.AcceptedImages, "must cover the sidecar's image, "+printable(s.Image))}
	}
	return nil
}

func validateSidecarImage(path *field.Path, s string) field.ErrorList {
	if s == "" {
		return field.ErrorList{field.Required(path, "such as ghcr.io/dexorder/lifecycle-sidecar:v0.1.0")}
	}
	ref, err := image.Parse(s)
	switch {
	case err != nil:
		return field.ErrorList{field.Invalid(path, s, "is not a valid image reference")}
	case ref.Tag == "" && ref.Digest == "":
		return field.ErrorList{field.Invalid(path, s, "must have a tag or a digest")}
	case ref.String() != s:
		return field.ErrorList{field.Invalid(path, s, "must be written in full, as "+ref.String())}
	}
	return nil
}

// validateSidecarResources holds the sidecar to what is asked of every container: agents would be refused for it.
func validateSidecarResources(path *field.Path, file *LifecyclePolicy) field.ErrorList {
	r := &file.Sidecar.Resources
	limits, requests := path.Child("limits"), path.Child("requests")
	errs := validateQuantities(limits, r.Limits)
	errs = append(errs, validateQuantities(requests, r.Requests)...)
	if len(r.Claims) > 0 {
		errs = append(errs, field.Forbidden(path.Child("claims"), "the sidecar takes no devices"))
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		request := r.Requests[name]
		if limit, found := r.Limits[name]; found && request.Cmp(limit) > 0 {
			errs = append(errs, field.Invalid(child(requests, string(name)), request.String(),
				fmt.Sprintf("must not be more than the limit, %s", limit.String())))
		}
	}
	for i := range file.Profiles {
		p := &file.Profiles[i]
		rule := &p.Rules.ResourceLimits
		for _, name := range rule.Limits {
			if _, found := r.Limits[name]; !found {
				errs = append(errs, field.Required(child(limits, string(name)), askedBy(p)))
			}
		}
		for _, name := range rule.Requests {
			_, requested := r.Requests[name]
			if _, limited := r.Limits[name]; !requested && !limited {
				errs = append(errs, field.Required(child(requests, string(name)), askedBy(p)))
			}
		}
		errs = append(errs, atMost(limits, r.Limits, p)...)
		errs = append(errs, atMost(requests, r.Requests, p)...)
	}
	return errs
}

func askedBy(p *Profile) string {
	return fmt.Sprintf("the resource-limits rule of profile %s asks it of every container", printable(p.Name))
}

func atMost(path *field.Path, list corev1.ResourceList, p *Profile) field.ErrorList {
	var errs field.ErrorList
	for _, name := range slices.Sorted(maps.Keys(list)) {
		quantity := list[name]
		if most, bounded := p.Rules.ResourceLimits.Max[name]; bounded && quantity.Cmp(most) > 0 {
			errs = append(errs, field.Invalid(child(path, string(name)), quantity.String(),
				fmt.Sprintf("the resource-limits rule of profile %s allows at most %s", printable(p.Name), most.String())))
		}
	}
	return errs
}

func validateIdentities(path *field.Path, ids *Identities) field.ErrorList {
	var errs field.ErrorList
	if ids.Gateway == "" {
		errs = append(errs, field.Required(path.Child("gateway"), "leave it out for "+defaultGateway))
	}
	editors := path.Child("tierEditors")
	errs = append(errs, validateSubjects(editors.Child("users"), ids.TierEditors.Users)...)
	errs = append(errs, validateSubjects(editors.Child("groups"), ids.TierEditors.Groups)...)
	errs = append(errs, validateSubjects(path.Child("reapers"), ids.Reapers)...)
	controllers := path.Child("controllers")
	if len(ids.Controllers) == 0 {
		errs = append(errs, field.Required(controllers, "without controllers no Pod can be created"))
	}
	return append(errs, validateSubjects(controllers, ids.Controllers)...)
}

func validateSubjects(path *field.Path, subjects []string) field.ErrorList {
	var errs field.ErrorList
	for i, s := range subjects {
		switch {
		case s == "":
			errs = append(errs, field.Required(path.Index(i), "the name of a user or group"))
		case s == Any:
			errs = append(errs, field.Invalid(path.Index(i), s, "users and groups are named exactly"))
		}
	}
	return append(errs, unique(path, subjects)...)
}
