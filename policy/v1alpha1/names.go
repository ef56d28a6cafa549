package v1alpha1

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// What a list of names may hold beside exact names.
const (
	// Placeholder stands for the agent's name. At most once in a name.
	Placeholder = "{deployment}"

	// Any, alone, stands for every name.
	Any = "*"
)

// validatePatterns checks a list of names that the agents of a namespace may use.
func validatePatterns(path *field.Path, patterns []string) field.ErrorList {
	var errs field.ErrorList
	for i, p := range patterns {
		if p == Any {
			continue
		}
		// Any agent's name will do to see whether names that are made from it are valid.
		name := strings.Replace(p, Placeholder, "agent", 1)
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), p,
				`must be a name, with {deployment} at most once for the agent's name, or "*" alone for any name`))
		}
	}
	for i, p := range patterns {
		errs = append(errs, validateDistinct(path.Index(i), p, patterns[:i])...)
	}
	return append(errs, unique(path, patterns)...)
}

// validateDistinct refuses a pattern by which one agent could name what another pattern gives to a second agent: by
// {deployment} an agent called x-data would own the x-data that agent x has by {deployment}-data.
//
// A name without placeholder is every agent's, and the author of the policy means that.
func validateDistinct(path *field.Path, pattern string, others []string) field.ErrorList {
	var errs field.ErrorList
	for _, other := range others {
		if collide(pattern, other) {
			errs = append(errs, field.Invalid(path, pattern,
				fmt.Sprintf("beside %q, one agent could be given what is another's", other)))
		}
	}
	return errs
}

// collide says whether two different agents could make the same name by a and b. Such a name begins with both prefixes
// and ends in both suffixes; if there is one agent for each of them, it is another agent, unless a and b are the same.
func collide(a, b string) bool {
	if a == b || strings.Count(a, Placeholder) != 1 || strings.Count(b, Placeholder) != 1 {
		return false
	}
	prefixA, suffixA, _ := strings.Cut(a, Placeholder)
	prefixB, suffixB, _ := strings.Cut(b, Placeholder)
	prefixes := strings.HasPrefix(prefixA, prefixB) || strings.HasPrefix(prefixB, prefixA)
	suffixes := strings.HasSuffix(suffixA, suffixB) || strings.HasSuffix(suffixB, suffixA)
	return prefixes && suffixes
}

// validateDrivers checks names of CSI drivers, which belong to the cluster and not to agents.
func validateDrivers(path *field.Path, drivers []string) field.ErrorList {
	var errs field.ErrorList
	for i, d := range drivers {
		if d != Any && len(validation.IsDNS1123Subdomain(strings.ToLower(d))) > 0 {
			errs = append(errs, field.Invalid(path.Index(i), d,
				`must be a CSI driver's name, such as secrets-store.csi.k8s.io, or "*" alone for any`))
		}
	}
	return append(errs, unique(path, drivers)...)
}
