package v1alpha1

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	// leastPatience keeps a typing error from making the reaper delete what has just come to rest.
	leastPatience = 10 * time.Second

	// maxParallelism bounds the load on the API server.
	maxParallelism = 64
)

func validateReaper(path *field.Path, r *Reaper) field.ErrorList {
	errs := atLeast(path.Child("interval"), r.Interval, time.Second)
	errs = append(errs, positive(path.Child("sightings"), r.Sightings)...)
	parallelism := path.Child("parallelism")
	errs = append(errs, positive(parallelism, r.Parallelism)...)
	if r.Parallelism > maxParallelism {
		errs = append(errs, field.Invalid(parallelism, r.Parallelism, fmt.Sprintf("must be at most %d", maxParallelism)))
	}
	limits := path.Child("cap")
	errs = append(errs, positive(limits.Child("count"), r.Cap.Count)...)
	errs = append(errs, positive(limits.Child("percent"), r.Cap.Percent)...)
	if r.Cap.Percent > 100 {
		errs = append(errs, field.Invalid(limits.Child("percent"), r.Cap.Percent, "must be at most 100"))
	}
	errs = append(errs, validateNamespaceReaper(path.Child("namespaces"), &r.Namespaces)...)
	errs = append(errs, validateReaping(path.Child("agents"), r.Agents.Mode, r.Agents.After, time.Second)...)
	errs = append(errs, validateReaping(path.Child("claims"), r.Claims.Mode, r.Claims.After, leastPatience)...)
	leftovers := path.Child("leftovers")
	errs = append(errs, validateReaping(leftovers, r.Leftovers.Mode, r.Leftovers.After, leastPatience)...)
	errs = append(errs, atLeast(leftovers.Child("finishedJobs"), r.Leftovers.FinishedJobs, leastPatience)...)
	drift := path.Child("drift")
	errs = append(errs, oneOf(drift.Child("mode"), r.Drift.Mode, driftModes())...)
	return append(errs, atLeast(drift.Child("interval"), r.Drift.Interval, leastPatience)...)
}

func validateReaping(path *field.Path, mode ReaperMode, after metav1.Duration, least time.Duration) field.ErrorList {
	errs := oneOf(path.Child("mode"), mode, reaperModes())
	return append(errs, atLeast(path.Child("after"), after, least)...)
}

func validateNamespaceReaper(path *field.Path, n *NamespaceReaper) field.ErrorList {
	errs := oneOf(path.Child("mode"), n.Mode, reaperModes())
	orgs := path.Child("orgs")
	for i, org := range n.Orgs {
		if org == "" {
			errs = append(errs, field.Required(orgs.Index(i), "a value of the label org"))
			continue
		}
		if reasons := validation.IsValidLabelValue(org); len(reasons) > 0 {
			errs = append(errs, field.Invalid(orgs.Index(i), org, strings.Join(reasons, "; ")))
		}
	}
	errs = append(errs, unique(orgs, n.Orgs)...)
	errs = append(errs, atLeast(path.Child("idleAfter"), n.IdleAfter, leastPatience)...)
	errs = append(errs, atLeast(path.Child("unhealthyAfter"), n.UnhealthyAfter, leastPatience)...)
	return append(errs, atLeast(path.Child("retain"), n.Retain, 0)...)
}
