package inject

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// securityDefaults gives the user's containers what the restricted Pod Security Standard and the read-only-rootfs rule
// ask for, where they do not say. A value that the user wrote is never changed: it is judged.
//
// All is set on containers and nothing on the Pod, since the pause process takes the Pod's user, and an agent of the
// same user could end it and with it the Pod. For the same reason the Pod's user is moved to the containers that it is for.
func (s *session) securityDefaults() {
	spec := &s.Spec.Template.Spec
	pod := spec.SecurityContext
	if pod == nil {
		pod = &corev1.PodSecurityContext{}
	}
	uid := lifecycle.AgentUID
	s.runAsUser = &uid
	switch {
	case pod.RunAsUser == nil || s.parts.keepPodUser && hasPodUser(s.old):
		if pod.RunAsUser != nil {
			s.runAsUser = nil
		}
	case inheritsUser(spec):
		s.runAsUser, pod.RunAsUser = pod.RunAsUser, nil
		s.remove(podPath + "/securityContext/runAsUser")
	}
	for i := range spec.InitContainers {
		s.securityDefault(&spec.InitContainers[i], pod, fmt.Sprintf("%s/initContainers/%d/securityContext", podPath, i))
	}
	for i := range spec.Containers {
		s.securityDefault(&spec.Containers[i], pod, fmt.Sprintf("%s/containers/%d/securityContext", podPath, i))
	}
}

func (s *session) securityDefault(c *corev1.Container, pod *corev1.PodSecurityContext, path string) {
	if c.Name == lifecycle.SidecarContainer {
		return
	}
	want := restricted()
	want.RunAsUser = s.runAsUser
	if pod.RunAsNonRoot != nil {
		want.RunAsNonRoot = nil
	}
	if pod.SeccompProfile != nil {
		want.SeccompProfile = nil
	}
	if c.SecurityContext == nil {
		c.SecurityContext = want
		s.set(path, want)
		return
	}
	have := c.SecurityContext
	if escalates(have) {
		// The API server calls the two together invalid, and the user would not learn from the rules what is wrong.
		want.AllowPrivilegeEscalation = nil
	}
	setDefault(s, &have.AllowPrivilegeEscalation, want.AllowPrivilegeEscalation, path+"/allowPrivilegeEscalation")
	setDefault(s, &have.ReadOnlyRootFilesystem, want.ReadOnlyRootFilesystem, path+"/readOnlyRootFilesystem")
	setDefault(s, &have.RunAsNonRoot, want.RunAsNonRoot, path+"/runAsNonRoot")
	setDefault(s, &have.RunAsUser, want.RunAsUser, path+"/runAsUser")
	setDefault(s, &have.SeccompProfile, want.SeccompProfile, path+"/seccompProfile")
	setDefault(s, &have.Capabilities, want.Capabilities, path+"/capabilities")
	if have.Capabilities.Drop == nil {
		have.Capabilities.Drop = want.Capabilities.Drop
		s.set(path+"/capabilities/drop", want.Capabilities.Drop)
	}
}

// inheritsUser says whether a container of the user's takes the Pod's user.
func inheritsUser(spec *corev1.PodSpec) bool {
	inherits := func(c corev1.Container) bool {
		return c.Name != lifecycle.SidecarContainer && (c.SecurityContext == nil || c.SecurityContext.RunAsUser == nil)
	}
	return slices.ContainsFunc(spec.InitContainers, inherits) || slices.ContainsFunc(spec.Containers, inherits)
}

func hasPodUser(d *appsv1.Deployment) bool {
	security := d.Spec.Template.Spec.SecurityContext
	return security != nil && security.RunAsUser != nil
}

// setDefault sets an absent field, in the typed object and in the patch.
func setDefault[T any](s *session, field **T, value *T, path string) {
	if *field != nil || value == nil {
		return
	}
	*field = value
	s.set(path, value)
}

func escalates(c *corev1.SecurityContext) bool {
	if c.Privileged != nil && *c.Privileged {
		return true
	}
	return c.Capabilities != nil && (slices.Contains(c.Capabilities.Add, "CAP_SYS_ADMIN") ||
		slices.Contains(c.Capabilities.Add, "SYS_ADMIN"))
}
