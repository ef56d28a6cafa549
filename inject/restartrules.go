package inject

import (
	"fmt"

	"k8s.io/apimachinery/pkg/util/version"
)

// restartRulesSince is the Kubernetes version in which container restart rules (KEP-5307) are on by default.
var restartRulesSince = version.MajorMinor(1, 35)

// KeepsRestartRules says whether an API server of a version, such as v1.36.3, keeps container restart rules unless its feature gate is
// closed.
func KeepsRestartRules(serverVersion string) (bool, error) {
	v, err := version.ParseSemantic(serverVersion)
	if err != nil {
		return false, fmt.Errorf("version %q: %w", serverVersion, err)
	}
	return version.MajorMinor(v.Major(), v.Minor()).AtLeast(restartRulesSince), nil
}
