package inject

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// agent gives the agent container its mount, its environment and its restart rules.
func (s *session) agent() {
	i, err := workload.AgentContainer(&s.Spec.Template)
	if err != nil {
		return // Refused by the agent-container rule.
	}
	c := &s.Spec.Template.Spec.Containers[i]
	path := fmt.Sprintf("%s/containers/%d", podPath, i)
	s.agentMount(c, path+"/volumeMounts")
	s.agentEnv(c, path+"/env")
	if rules := restartUnlessIdle(); !s.parts.HasSidecar() && workload.Equal(&c.RestartPolicyRules, &rules) {
		c.RestartPolicy, c.RestartPolicyRules = nil, nil
		s.remove(path + "/restartPolicy")
		s.remove(path + "/restartPolicyRules")
	}
	if c.RestartPolicy == nil && c.RestartPolicyRules == nil && len(s.parts.RestartRules) > 0 {
		never := corev1.ContainerRestartPolicyNever
		c.RestartPolicy, c.RestartPolicyRules = &never, s.parts.RestartRules
		s.set(path+"/restartPolicy", never)
		s.set(path+"/restartPolicyRules", s.parts.RestartRules)
	}
}

// agentMount puts the mount in place, whatever stands there under the volume's name. What is left beside it, such as a
// second mount of the volume, is refused by the sidecar-integrity rule.
func (s *session) agentMount(c *corev1.Container, path string) {
	if DeviceInPlaceOfMount(c) {
		return
	}
	for i := range c.VolumeMounts {
		if workload.Equal(&c.VolumeMounts[i], &s.parts.AgentMount) {
			return
		}
	}
	for i, m := range c.VolumeMounts {
		switch {
		case m.Name == lifecycle.RunVolume:
			s.warn("container %q: the mount of volume %q was put back to %s", c.Name, m.Name, lifecycle.RunDir)
			replaceIn(&s.editor, c.VolumeMounts, i, path, s.parts.AgentMount)
			return
		case m.MountPath == lifecycle.RunDir:
			return // A second mount at one path would be invalid.
		}
	}
	appendTo(&s.editor, &c.VolumeMounts, path, s.parts.AgentMount)
}

// agentEnv puts the variables in place. One that is there twice is left for the sidecar-integrity rule to refuse: which
// of the two a program sees is not for us to choose.
func (s *session) agentEnv(c *corev1.Container, path string) {
	var missing []corev1.EnvVar
	for i := range s.parts.AgentEnv {
		want := s.parts.AgentEnv[i]
		first := envIndex(c.Env, want.Name)
		switch {
		case first < 0:
			missing = append(missing, want)
		case envIndex(c.Env[first+1:], want.Name) >= 0, workload.Equal(&c.Env[first], &s.parts.AgentEnv[i]):
		default:
			if !s.storedEnv(c.Name, c.Env[first]) {
				s.warn("container %q: env %s is set by the agent's tier; your value was replaced", c.Name, want.Name)
			}
			replaceIn(&s.editor, c.Env, first, path, want)
		}
	}
	appendTo(&s.editor, &c.Env, path, missing...)
}

// storedEnv says whether the stored Deployment has the very same variable, so that it was not the user who wrote it.
func (s *session) storedEnv(container string, env corev1.EnvVar) bool {
	if s.old == nil {
		return false
	}
	stored := s.old.Spec.Template.Spec.Containers
	i := containerIndex(stored, container)
	if i < 0 {
		return false
	}
	j := envIndex(stored[i].Env, env.Name)
	return j >= 0 && workload.Equal(&stored[i].Env[j], &env)
}
