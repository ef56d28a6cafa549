package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Every container is bounded, itself or through the Pod's own resources (KEP-2837), and asks for what it needs. A zero
// is no bound. A limit implies the request, as in the API. Nothing is asked of ephemeral containers: the API forbids
// resources there.
//
// Quantities are compared exactly, with Cmp: 1e100 and 9223372036854775808 have no int64 value.
var resourceLimits = Rule{
	ID:          "resource-limits",
	Summary:     "containers have limits and requests, within the profile's bounds",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ResourceLimits.Enforcement },
	applies:     podsChange,
	check:       checkResources,
}

func checkResources(p *Profile, r *Request) []Violation {
	rule, template := p.file.Rules.ResourceLimits, r.Object.Template
	var pod corev1.ResourceRequirements
	var found []Violation
	if template.Spec.Resources != nil {
		pod = *template.Spec.Resources
		found = append(found, checkMax(rule.Max, pod, template.Field("spec.resources"), "the Pod")...)
	}
	for _, c := range template.Containers() {
		if full(found) {
			return found
		}
		if c.Sort == workload.Ephemeral {
			continue
		}
		if missing := missingResources(rule.Limits, c.Resources.Limits, pod.Limits); missing != nil {
			found = append(found, violation(c.Path()+".resources.limits", "container %q must set %s", c.Name, strings.Join(missing, ", ")))
		}
		missing := missingResources(rule.Requests, c.Resources.Requests, c.Resources.Limits, pod.Requests, pod.Limits)
		if missing != nil {
			found = append(found, violation(c.Path()+".resources.requests", "container %q must set %s", c.Name, strings.Join(missing, ", ")))
		}
		found = append(found, checkMax(rule.Max, c.Resources, c.Path()+".resources", fmt.Sprintf("container %q", c.Name))...)
	}
	return found
}

// missingResources names, for a message, the resources for which none of the lists has a quantity above zero or one has
// a zero.
func missingResources(names []corev1.ResourceName, lists ...corev1.ResourceList) []string {
	var missing []string
	for _, name := range names {
		zero, set := false, false
		for _, list := range lists {
			quantity, ok := list[name]
			zero = zero || ok && quantity.Sign() <= 0
			set = set || ok && quantity.Sign() > 0
		}
		switch {
		case zero:
			missing = append(missing, fmt.Sprintf("%q above 0", name))
		case !set:
			missing = append(missing, fmt.Sprintf("%q", name))
		}
	}
	return missing
}

func checkMax(bounds corev1.ResourceList, resources corev1.ResourceRequirements, field, who string) []Violation {
	var found []Violation
	for _, part := range []struct {
		name string
		list corev1.ResourceList
	}{{"limits", resources.Limits}, {"requests", resources.Requests}} {
		for _, name := range slices.Sorted(maps.Keys(bounds)) {
			bound := bounds[name]
			if got, ok := part.list[name]; ok && got.Cmp(bound) > 0 {
				found = append(found, violation(fmt.Sprintf("%s.%s[%s]", field, part.name, name),
					"%s has %s, more than the allowed %s", who, got.String(), bound.String()))
			}
		}
	}
	return found
}
