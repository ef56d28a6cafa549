package inject

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// agentContainer writes on the template which container runs the agent, where it is not called agent. In a Pod that cannot be
// told any more once a service mesh has added a container of its own.
//
// A template that has no such annotation, since it was stored before the system wrote it, gets one with its next change: a
// change of the annotation alone would restart the agent.
func (s *session) agentContainer() {
	const key = lifecycle.AnnotationAgentContainer
	template := &s.Spec.Template
	written, has := template.Annotations[key]
	want := s.wantedAgentContainer()
	switch {
	case want == written:
	case want == "":
		s.warn("template annotation %s named %q, which is gone: the agent is the container %q", key, written, lifecycle.AgentContainer)
		s.removeKey(template.Annotations, templatePath+"/metadata/annotations", key)
	default:
		if has {
			s.warn("template annotation %s named %q, which is gone: the agent is the container %q", key, written, want)
		}
		s.setTemplateAnnotation(key, want)
	}
}

// wantedAgentContainer returns what the annotation is to say. Empty: there is to be none.
//
// What the user writes stays: the rule agent-container judges it. It is taken for the user's unless it is what is stored, and
// names nobody any more; then the container was given another name, and the annotation was left behind, as by kubectl apply
// of a manifest without it.
func (s *session) wantedAgentContainer() string {
	const key = lifecycle.AnnotationAgentContainer
	template := &s.Spec.Template
	written, has := template.Annotations[key]
	var stored string
	if s.old != nil {
		stored = s.old.Spec.Template.Annotations[key]
	}
	storedIsThere := stored != "" && containerIndex(template.Spec.Containers, stored) >= 0
	switch {
	case has && (written != stored || storedIsThere):
		return written
	case s.parts.keepAgentContainer:
		if has {
			return written
		}
		return stored
	}
	i, err := workload.AgentContainer(&corev1.PodTemplateSpec{Spec: template.Spec})
	switch {
	case err == nil && template.Spec.Containers[i].Name == lifecycle.AgentContainer:
		return ""
	case err == nil:
		return template.Spec.Containers[i].Name
	case !has && storedIsThere: // it was decided once
		return stored
	}
	return written
}

// setTemplateAnnotation writes an annotation on the template, which may have no metadata yet: nothing can be added below what
// is not there.
func (s *session) setTemplateAnnotation(key, value string) {
	const path = templatePath + "/metadata"
	meta := &s.Spec.Template.ObjectMeta
	if workload.Equal(meta, &metav1.ObjectMeta{}) {
		*meta = metav1.ObjectMeta{Annotations: map[string]string{key: value}}
		s.set(path, map[string]any{"annotations": meta.Annotations})
		return
	}
	s.setKey(&meta.Annotations, path+"/annotations", key, value)
}
