package v1alpha1

import (
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	minIdleTimeout   = time.Minute
	minCheckInterval = time.Second
)

func validateTiers(path *field.Path, tiers map[lifecycle.UserType]Tier) field.ErrorList {
	var errs field.ErrorList
	for _, userType := range slices.Sorted(maps.Keys(tiers)) {
		at := child(path, string(userType))
		if unknown := oneOf(at, userType, lifecycle.UserTypes()); len(unknown) > 0 {
			errs = append(errs, unknown...)
			continue
		}
		tier := tiers[userType]
		errs = append(errs, oneOf(at.Child("shutdown"), tier.Shutdown, shutdowns())...)
		errs = append(errs, oneOf(at.Child("storage"), tier.Storage, storages())...)
		if tier.Shutdown == ShutdownNever && tier.Storage == StorageDelete {
			errs = append(errs, field.Invalid(at.Child("storage"), tier.Storage,
				"must be Keep in a tier that never shuts down"))
		}
		least := minIdleTimeout
		if tier.Shutdown == ShutdownNever {
			least = 0
		}
		errs = append(errs, atLeast(at.Child("idleTimeout"), tier.IdleTimeout, least)...)
	}
	return errs
}

func validateIdle(path *field.Path, file *LifecyclePolicy) field.ErrorList {
	idle := &file.Idle
	errs := atLeast(path.Child("checkInterval"), idle.CheckInterval, minCheckInterval)
	errs = append(errs, atLeast(path.Child("warning"), idle.Warning, 0)...)
	errs = append(errs, atLeast(path.Child("snoozeMax"), idle.SnoozeMax, 0)...)
	errs = append(errs, atLeast(path.Child("grace"), idle.Grace, 0)...)
	for _, userType := range lifecycle.UserTypes() {
		tier := file.Tiers[userType]
		if tier.Shutdown != ShutdownWhenIdle || tier.IdleTimeout.Duration < minIdleTimeout {
			continue
		}
		if idle.Warning.Duration >= tier.IdleTimeout.Duration {
			errs = append(errs, field.Invalid(path.Child("warning"), idle.Warning,
				fmt.Sprintf("must be shorter than tiers.%s.idleTimeout, %s", userType, tier.IdleTimeout.Duration)))
		}
	}
	return errs
}

// atLeast also asks for whole seconds: agents are told in seconds.
func atLeast(path *field.Path, d metav1.Duration, least time.Duration) field.ErrorList {
	switch {
	case d.Duration < least:
		return field.ErrorList{field.Invalid(path, d, fmt.Sprintf("must be at least %s", least))}
	case d.Duration%time.Second != 0:
		return field.ErrorList{field.Invalid(path, d, "must be whole seconds")}
	}
	return nil
}
