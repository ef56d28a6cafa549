package fleet

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/inject"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Changes says in words, for people, what differs between a Deployment and what it would become. That it was asked for is no change.
func Changes(from, to *appsv1.Deployment) []string {
	var changes []string
	add := func(format string, args ...any) { changes = append(changes, fmt.Sprintf(format, args...)) }
	switch was, is := imageOf(policy.SidecarOf(from)), imageOf(policy.SidecarOf(to)); {
	case was == "" && is != "":
		add("sidecar %s is added", is)
	case was != "" && is == "":
		add("sidecar %s is taken out", was)
	case was != is:
		add("sidecar %s becomes %s", was, is)
	case was != "" && !workload.Equal(policy.SidecarOf(from), policy.SidecarOf(to)):
		add("sidecar %s gets other settings", is)
	}
	if from.Spec.Strategy.Type != to.Spec.Strategy.Type {
		add("strategy %s becomes %s", from.Spec.Strategy.Type, to.Spec.Strategy.Type)
	}
	for _, key := range []string{lifecycle.LabelDeployment, lifecycle.LabelUserType} {
		if was, is := from.Labels[key], to.Labels[key]; was != is {
			add("label %s: %q becomes %q", key, was, is)
		}
	}
	was, is := &from.Spec.Template.Spec, &to.Spec.Template.Spec
	if was.ServiceAccountName != is.ServiceAccountName {
		add("service account %q becomes %q", was.ServiceAccountName, is.ServiceAccountName)
	}
	if !workload.Equal(&was.AutomountServiceAccountToken, &is.AutomountServiceAccountToken) {
		add("the account's token is mounted: %s becomes %s", optional(was.AutomountServiceAccountToken), optional(is.AutomountServiceAccountToken))
	}
	if !workload.Equal(&was.ShareProcessNamespace, &is.ShareProcessNamespace) {
		add("the containers see one another's processes: %s becomes %s", optional(was.ShareProcessNamespace), optional(is.ShareProcessNamespace))
		changes = append(changes, processOneChanges(is)...)
	}
	if !workload.Equal(&was.EnableServiceLinks, &is.EnableServiceLinks) {
		add("the environment tells of the namespace's Services: %s becomes %s", optional(was.EnableServiceLinks), optional(is.EnableServiceLinks))
	}
	changes = append(changes, containerChanges(was.InitContainers, is.InitContainers)...)
	changes = append(changes, containerChanges(was.Containers, is.Containers)...)
	for _, of := range []struct {
		what     string
		from, to []corev1.Volume
	}{{"added", was.Volumes, is.Volumes}, {"taken out", is.Volumes, was.Volumes}} {
		if names := onlyIn(of.to, of.from); len(names) > 0 {
			add("volumes are %s: %s", of.what, strings.Join(names, ", "))
		}
	}
	for i := range is.Volumes {
		if j := indexOf(was.Volumes, is.Volumes[i].Name); j >= 0 && !workload.Equal(&was.Volumes[j], &is.Volumes[i]) {
			add("volume %s is changed", is.Volumes[i].Name)
		}
	}
	return changes
}

// processOneChanges names the containers that will not start once processes are shared.
func processOneChanges(spec *corev1.PodSpec) []string {
	if spec.ShareProcessNamespace == nil || !*spec.ShareProcessNamespace {
		return nil
	}
	var changes []string
	for i := range spec.Containers {
		if init := workload.NeedsProcessOne(&spec.Containers[i]); init != "" {
			changes = append(changes, fmt.Sprintf("container %s: %s must be process 1, which will be another: it does not start like this",
				spec.Containers[i].Name, init))
		}
	}
	return changes
}

// onlyIn names the volumes that are not among others.
func onlyIn(volumes, others []corev1.Volume) []string {
	var names []string
	for i := range volumes {
		if indexOf(others, volumes[i].Name) < 0 {
			names = append(names, volumes[i].Name)
		}
	}
	return names
}

func indexOf(volumes []corev1.Volume, name string) int {
	return slices.IndexFunc(volumes, func(v corev1.Volume) bool { return v.Name == name })
}

// withoutActivityKey returns an environment without what comes with the gateway's key.
func withoutActivityKey(env []corev1.EnvVar) []corev1.EnvVar {
	return slices.DeleteFunc(slices.Clone(env), func(e corev1.EnvVar) bool {
		return slices.ContainsFunc(inject.ActivityEnv(), func(of corev1.EnvVar) bool { return of.Name == e.Name })
	})
}

// containerChanges are those of the user's containers. What is filled in there may keep an agent from starting.
func containerChanges(from, to []corev1.Container) []string {
	var changes []string
	for i := range to {
		is := &to[i]
		j := slices.IndexFunc(from, func(c corev1.Container) bool { return c.Name == is.Name })
		if is.Name == lifecycle.SidecarContainer || j < 0 {
			continue
		}
		was := &from[j]
		add := func(format string, args ...any) {
			changes = append(changes, fmt.Sprintf("container %s: ", is.Name)+fmt.Sprintf(format, args...))
		}
		if filled := securityFilledIn(was.SecurityContext, is.SecurityContext); len(filled) > 0 {
			add("%s where it does not say", strings.Join(filled, ", "))
		}
		switch before, after := withoutActivityKey(was.Env), withoutActivityKey(is.Env); {
		case !workload.Equal(&before, &after):
			add("the environment says when it is idle")
		case !workload.Equal(&was.Env, &is.Env):
			add("the environment says by which key the gateway signs")
		}
		if !workload.Equal(&was.VolumeMounts, &is.VolumeMounts) {
			add("%s is mounted", lifecycle.RunDir)
		}
		switch {
		case workload.Equal(&was.RestartPolicyRules, &is.RestartPolicyRules):
		case len(is.RestartPolicyRules) > 0:
			add("it is started again after every exit code but %d", lifecycle.ExitIdle)
		default:
			add("it is started again after every exit code")
		}
	}
	return changes
}

func securityFilledIn(was, is *corev1.SecurityContext) []string {
	if was == nil {
		was = &corev1.SecurityContext{}
	}
	if is == nil {
		return nil
	}
	var filled []string
	if was.ReadOnlyRootFilesystem == nil && is.ReadOnlyRootFilesystem != nil {
		filled = append(filled, fmt.Sprintf("readOnlyRootFilesystem=%t", *is.ReadOnlyRootFilesystem))
	}
	if was.RunAsUser == nil && is.RunAsUser != nil {
		filled = append(filled, fmt.Sprintf("runAsUser=%d", *is.RunAsUser))
	}
	if was.RunAsNonRoot == nil && is.RunAsNonRoot != nil {
		filled = append(filled, fmt.Sprintf("runAsNonRoot=%t", *is.RunAsNonRoot))
	}
	if was.AllowPrivilegeEscalation == nil && is.AllowPrivilegeEscalation != nil {
		filled = append(filled, fmt.Sprintf("allowPrivilegeEscalation=%t", *is.AllowPrivilegeEscalation))
	}
	if is.Capabilities != nil && (was.Capabilities == nil || was.Capabilities.Drop == nil) {
		filled = append(filled, fmt.Sprintf("capabilities.drop=%v", is.Capabilities.Drop))
	}
	if was.SeccompProfile == nil && is.SeccompProfile != nil {
		filled = append(filled, fmt.Sprintf("seccompProfile=%s", is.SeccompProfile.Type))
	}
	return filled
}

func imageOf(c *corev1.Container) string {
	if c == nil {
		return ""
	}
	return c.Image
}

func optional(b *bool) string {
	if b == nil {
		return "unset"
	}
	return fmt.Sprint(*b)
}

// sameTemplate says whether two Deployments run the same, but for that one was asked to be renewed.
func sameTemplate(a, b *appsv1.Deployment) bool {
	x, y := a.Spec.Template.DeepCopy(), b.Spec.Template.DeepCopy()
	delete(x.Annotations, lifecycle.AnnotationRenewedAt)
	delete(y.Annotations, lifecycle.AnnotationRenewedAt)
	return workload.Equal(x, y)
}
