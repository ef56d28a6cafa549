package v1alpha1

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// maxProofWindow bounds how long an agent that works again can still be deleted for its last exit.
const maxProofWindow = 10 * time.Minute

func validateSelfDelete(path *field.Path, s *SelfDelete) field.ErrorList {
	window := path.Child("proofWindow")
	errs := atLeast(window, s.ProofWindow, time.Second)
	if s.ProofWindow.Duration > maxProofWindow {
		errs = append(errs, field.Invalid(window, s.ProofWindow, fmt.Sprintf("must be at most %s", maxProofWindow)))
	}
	errs = append(errs, atLeast(path.Child("minimumLifetime"), s.MinimumLifetime, 0)...)
	breaker := path.Child("breaker")
	errs = append(errs, positive(breaker.Child("burst"), s.Breaker.Burst)...)
	return append(errs, positive(breaker.Child("perMinute"), s.Breaker.PerMinute)...)
}

func positive(path *field.Path, n int32) field.ErrorList {
	if n > 0 {
		return nil
	}
	return field.ErrorList{field.Invalid(path, n, "must be at least 1")}
}
