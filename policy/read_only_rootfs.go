package policy

import (
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Root file systems are read-only, so that what an agent fetches and runs cannot stay in its image's place; it writes
// to volumes. The Pod Security Standards do not ask for that.
var readOnlyRootfs = Rule{
	ID:          "read-only-rootfs",
	Summary:     "root file systems are read-only",
	enforcement: func(r *v1alpha1.Rules) v1alpha1.Enforcement { return r.ReadOnlyRootfs.Enforcement },
	applies:     podsChange,
	check:       checkReadOnlyRootfs,
}

func checkReadOnlyRootfs(_ *Profile, r *Request) []Violation {
	var found []Violation
	for _, c := range r.Object.Template.Containers() {
		if full(found) {
			return found
		}
		var readOnly *bool
		if c.SecurityContext != nil {
			readOnly = c.SecurityContext.ReadOnlyRootFilesystem
		}
		if readOnly == nil || !*readOnly {
			found = append(found, violation(c.Path()+".securityContext.readOnlyRootFilesystem",
				"container %q: %s, must be true", c.Name, isValue(readOnly)))
		}
	}
	return found
}
