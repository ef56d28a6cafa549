package v1alpha1

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Namespaces that no profile may cover: a mistake in the policy there would stop the cluster, or this system itself.
const (
	systemPrefix = "kube-"
	ownNamespace = "dexorder-system"
)

func validateProfiles(path *field.Path, profiles []Profile) field.ErrorList {
	if len(profiles) == 0 {
		return field.ErrorList{field.Required(path, "at least one profile; without any no namespace is covered")}
	}
	var errs field.ErrorList
	var names []string
	for i := range profiles {
		p, at := &profiles[i], path.Index(i)
		if slices.Contains(names, p.Name) && p.Name != "" {
			errs = append(errs, field.Duplicate(at.Child("name"), p.Name))
		}
		names = append(names, p.Name)
		errs = append(errs, validateProfile(at, p)...)
		for j := range profiles[:i] {
			errs = append(errs, validateDisjoint(at.Child("namespaces"), &p.Namespaces, &profiles[j])...)
		}
	}
	return errs
}

func validateProfile(path *field.Path, p *Profile) field.ErrorList {
	var errs field.ErrorList
	if p.Name == "" {
		errs = append(errs, field.Required(path.Child("name"), "it appears in answers and metrics"))
	} else {
		errs = append(errs, invalid(path.Child("name"), p.Name, validation.IsDNS1123Label(p.Name))...)
	}
	errs = append(errs, validateNamespaces(path.Child("namespaces"), &p.Namespaces)...)
	errs = append(errs, oneOf(path.Child("defaultUserType"), p.DefaultUserType, lifecycle.UserTypes())...)
	if account := p.ServiceAccount.Name; account != "" {
		errs = append(errs, invalid(path.Child("serviceAccount", "name"), account, validation.IsDNS1123Subdomain(account))...)
	}
	errs = append(errs, oneOf(path.Child("adoption"), p.Adoption, adoptions())...)
	return append(errs, validateRules(path.Child("rules"), p)...)
}

func validateNamespaces(path *field.Path, n *Namespaces) field.ErrorList {
	if len(n.Names) == 0 && len(n.Prefixes) == 0 {
		return field.ErrorList{field.Required(path, "at least one of names and prefixes")}
	}
	var errs field.ErrorList
	names, prefixes := path.Child("names"), path.Child("prefixes")
	for i, name := range n.Names {
		errs = append(errs, invalid(names.Index(i), name, validation.IsDNS1123Label(name))...)
		if name == "default" || name == ownNamespace || strings.HasPrefix(name, systemPrefix) {
			errs = append(errs, field.Invalid(names.Index(i), name, notCovered))
		}
	}
	for i, prefix := range n.Prefixes {
		errs = append(errs, validatePrefix(prefixes.Index(i), prefix)...)
	}
	errs = append(errs, unique(names, n.Names)...)
	errs = append(errs, unique(prefixes, n.Prefixes)...)
	return append(errs, validateExcept(path.Child("except"), n)...)
}

// validateExcept refuses what would leave nothing out, which is mostly a misspelt name.
func validateExcept(path *field.Path, n *Namespaces) field.ErrorList {
	var errs field.ErrorList
	for i, name := range n.Except {
		at := path.Index(i)
		switch {
		case len(validation.IsDNS1123Label(name)) > 0:
			errs = append(errs, invalid(at, name, validation.IsDNS1123Label(name))...)
		case slices.Contains(n.Names, name):
			errs = append(errs, field.Invalid(at, name, "stands among names as well; take it out of one of the two"))
		case n.MatchingPrefix(name) == "":
			errs = append(errs, field.Invalid(at, name, "must begin with one of the prefixes, and is covered by none of them"))
		}
	}
	return append(errs, unique(path, n.Except)...)
}

const notCovered = "kube-*, default and dexorder-system cannot be covered"

func validatePrefix(path *field.Path, prefix string) field.ErrorList {
	stem := strings.TrimRight(prefix, "-")
	switch {
	case stem == prefix || len(validation.IsDNS1123Label(stem)) > 0 || len(prefix) >= validation.DNS1123LabelMaxLength:
		return field.ErrorList{field.Invalid(path, prefix,
			`must be the beginning of a namespace's name and end in "-", such as agent-`)}
	case strings.HasPrefix(prefix, systemPrefix), strings.HasPrefix(ownNamespace, prefix):
		return field.ErrorList{field.Invalid(path, prefix, notCovered)}
	}
	return nil
}

// validateDisjoint returns an error for everything in n that another profile covers as well.
func validateDisjoint(path *field.Path, n *Namespaces, other *Profile) field.ErrorList {
	var errs field.ErrorList
	for i, name := range n.Names {
		at := path.Child("names").Index(i)
		if slices.Contains(other.Namespaces.Names, name) {
			errs = append(errs, covered(at, name, other, name))
		}
		for _, prefix := range other.Namespaces.Prefixes {
			if strings.HasPrefix(name, prefix) && !slices.Contains(other.Namespaces.Except, name) {
				errs = append(errs, covered(at, name, other, prefix))
			}
		}
	}
	for i, prefix := range n.Prefixes {
		at := path.Child("prefixes").Index(i)
		for _, name := range other.Namespaces.Names {
			if strings.HasPrefix(name, prefix) && !slices.Contains(n.Except, name) {
				errs = append(errs, covered(at, prefix, other, name))
			}
		}
		for _, theirs := range other.Namespaces.Prefixes {
			if strings.HasPrefix(prefix, theirs) || strings.HasPrefix(theirs, prefix) {
				errs = append(errs, covered(at, prefix, other, theirs))
			}
		}
	}
	return errs
}

func covered(path *field.Path, value string, other *Profile, theirs string) *field.Error {
	return field.Invalid(path, value,
		fmt.Sprintf("profile %s covers such namespaces already by %s", printable(other.Name), printable(theirs)))
}
