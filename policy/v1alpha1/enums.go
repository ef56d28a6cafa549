package v1alpha1

import (
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	podsecurity "k8s.io/pod-security-admission/api"
)

// The values that a field takes, for validation and for the schema.

func enforcements() []Enforcement { return []Enforcement{Enforce, Warn, Audit} }

func shutdowns() []Shutdown { return []Shutdown{ShutdownWhenIdle, ShutdownNever} }

func storages() []Storage { return []Storage{StorageDelete, StorageKeep} }

func restartRules() []RestartRules {
	return []RestartRules{RestartRulesAuto, RestartRulesOn, RestartRulesOff}
}

func sidecarModes() []SidecarMode { return []SidecarMode{SidecarInject, SidecarNone} }

func adoptions() []Adoption { return []Adoption{AdoptionWarn, AdoptionEnforce} }

func podSecurityLevels() []podsecurity.Level {
	return []podsecurity.Level{podsecurity.LevelPrivileged, podsecurity.LevelBaseline, podsecurity.LevelRestricted}
}

func workloadKinds() []string {
	return []string{"Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"}
}

// volumeTypes are all that the API knows, sorted.
func volumeTypes() []string {
	fields := reflect.VisibleFields(reflect.TypeFor[corev1.VolumeSource]())
	types := make([]string, 0, len(fields))
	for _, f := range fields {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		types = append(types, name)
	}
	slices.Sort(types)
	return types
}

func driftModes() []DriftMode { return []DriftMode{DriftReport, DriftOff} }

func reaperModes() []ReaperMode { return []ReaperMode{ReaperDelete, ReaperDryRun, ReaperOff} }
