package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"

	"github.com/dexorder/agent-lifecycle/workload"
)

// contains says whether a container is another one with nothing but additions that do not change what it does:
// resources, a pull policy, variables under other names, mounts at other paths.
func contains(got, want *corev1.Container) bool {
	return firstDifference(strip(got, want), strip(want, want)) == ""
}

// strip returns the container without what contains leaves free.
func strip(c, want *corev1.Container) *corev1.Container {
	s := *c
	s.Resources, s.ImagePullPolicy = corev1.ResourceRequirements{}, ""
	names := map[string]bool{}
	for _, env := range want.Env {
		names[env.Name] = true
	}
	s.Env = nil
	for _, env := range c.Env {
		if names[env.Name] {
			s.Env = append(s.Env, env)
		}
	}
	s.VolumeMounts = nil
	for _, mount := range c.VolumeMounts {
		for _, m := range want.VolumeMounts {
			if mount.Name == m.Name || mount.MountPath == m.MountPath || inRunDir(mount.MountPath) {
				s.VolumeMounts = append(s.VolumeMounts, mount)
				break
			}
		}
	}
	return &s
}

// firstDifference names a field in which two containers differ, for a message; empty if they are equal.
func firstDifference(got, want *corev1.Container) string {
	if got.Image != want.Image {
		return fmt.Sprintf("image is %q, must be %q", got.Image, want.Image)
	}
	for _, field := range []struct {
		name      string
		got, want any
	}{
		{"command", got.Command, want.Command},
		{"args", got.Args, want.Args},
		{"workingDir", got.WorkingDir, want.WorkingDir},
		{"env", got.Env, want.Env},
		{"envFrom", got.EnvFrom, want.EnvFrom},
		{"volumeMounts", got.VolumeMounts, want.VolumeMounts},
		{"securityContext", got.SecurityContext, want.SecurityContext},
		{"resources", got.Resources, want.Resources},
		{"lifecycle", got.Lifecycle, want.Lifecycle},
		{"restartPolicy", got.RestartPolicy, want.RestartPolicy},
	} {
		if !apiequality.Semantic.DeepEqual(field.got, field.want) {
			return "field " + field.name + " differs"
		}
	}
	if !workload.Equal(got, want) {
		return "it has fields that do not belong there"
	}
	return ""
}
