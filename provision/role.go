package provision

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Role says whose namespace is rendered.
type Role struct {
	// Name is the role, such as "marketing".
	Name string

	// Org and Environment are what the namespace's labels say. Empty leaves what the kustomization says.
	Org, Environment string

	// Image is what the agent runs; empty leaves what the kustomization says.
	Image string

	// Dir is a kustomization of one's own. Empty means the template of this package.
	Dir string

	// Components of the template, where Dir is empty.
	Components []string
}

// check finds every mistake at once.
func (r *Role) check() error {
	var errs []error
	label := func(what, value, flag string) {
		if value == "" && flag != "" {
			errs = append(errs, fmt.Errorf("%s is missing: say which, with %s", what, flag))
			return
		}
		if problems := validation.IsDNS1123Label(value); len(problems) > 0 {
			errs = append(errs, fmt.Errorf("%s %q: accepted are at most 63 of a-z, 0-9 and -, which begin and end with a letter or digit", what, value))
		}
	}
	label("role", r.Name, "")
	if r.Org != "" || r.Dir == "" {
		label("org", r.Org, "--org")
	}
	if r.Environment != "" || r.Dir == "" {
		label("environment", r.Environment, "--env")
	}
	if r.Dir == "" && len(r.namespace()) > validation.DNS1123LabelMaxLength {
		errs = append(errs, fmt.Errorf("role %q: its namespace %s would have more than %d characters", r.Name, r.namespace(), validation.DNS1123LabelMaxLength))
	}
	if r.Dir != "" && len(r.Components) > 0 {
		errs = append(errs, fmt.Errorf("components %s: a kustomization of your own lists its components itself", strings.Join(r.Components, ", ")))
	}
	return errors.Join(errs...)
}

// namespace is where the template puts a role.
func (r *Role) namespace() string {
	return lifecycle.RoleNamespacePrefix + strings.TrimPrefix(r.Name, lifecycle.RoleNamespacePrefix)
}
