package inject

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	templatePath = "/spec/template"
	podPath      = templatePath + "/spec"
)

// labels writes the agent's identity on the Deployment and on its template.
func (s *session) labels() {
	if s.Name != "" && len(validation.IsValidLabelValue(s.Name)) == 0 {
		s.label(lifecycle.LabelDeployment, s.Name)
	}
	if _, ok := s.config.Tiers[s.parts.userType]; ok {
		s.label(lifecycle.LabelUserType, string(s.parts.userType))
	}
}

func (s *session) label(key, value string) {
	if had, ok := s.Labels[key]; had != value {
		if ok {
			s.warn("metadata.labels: %s is written by the system: %q was put back to %q", key, had, value)
		}
		s.setLabel(&s.ObjectMeta, "/metadata", key, value)
	}
	if template := &s.Spec.Template.ObjectMeta; template.Labels[key] != value && SelectsWith(s.Spec.Selector, template.Labels, key, value) {
		s.setLabel(template, templatePath+"/metadata", key, value)
	}
}

// renewal keeps what is stored of a request for what is injected today. It is in no manifest, and without it an agent whose manifest is
// applied again would be restarted.
func (s *session) renewal() {
	if s.old == nil {
		return
	}
	const key = lifecycle.AnnotationRenewedAt
	was, stored := s.old.Spec.Template.Annotations[key]
	if _, has := s.Spec.Template.Annotations[key]; !has && stored {
		s.setTemplateAnnotation(key, was)
	}
}

func (s *session) setLabel(meta *metav1.ObjectMeta, path, key, value string) {
	if meta.Labels == nil && workload.Equal(meta, &metav1.ObjectMeta{}) {
		// There may be no metadata at all, and a label cannot be added below what is not there.
		// An empty map of annotations goes with it.
		*meta = metav1.ObjectMeta{Labels: map[string]string{key: value}}
		s.set(path, map[string]any{"labels": map[string]string{key: value}})
		return
	}
	s.setKey(&meta.Labels, path+"/labels", key, value)
}

// strategy makes the old Pod go before the new one comes: two Pods cannot hold one ReadWriteOnce claim, and two
// agents of one name must never run at once.
func (s *session) strategy() {
	want := appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
	if workload.Equal(&s.Spec.Strategy, &want) {
		return
	}
	s.Spec.Strategy = want
	s.set("/spec/strategy", want)
}

// pod sets what belongs to the Pod as a whole.
func (s *session) pod() {
	spec := &s.Spec.Template.Spec
	share := spec.ShareProcessNamespace
	if s.parts.HasSidecar() && (share == nil || !*share) && ProcessNamespaceConflict(spec) == nil {
		if share != nil {
			s.warn("spec.template.spec.shareProcessNamespace was set to true: the sidecar watches the agent's process")
		}
		yes := true
		spec.ShareProcessNamespace = &yes
		s.set(podPath+"/shareProcessNamespace", true)
		s.processOne(spec)
	}
	s.serviceLinks()
	account := s.config.ServiceAccount
	if account.Name != "" && spec.ServiceAccountName == "" && spec.DeprecatedServiceAccount == "" {
		// The API server keeps both names alike; with one of them alone the result would not equal what it stores.
		spec.ServiceAccountName, spec.DeprecatedServiceAccount = account.Name, account.Name
		s.set(podPath+"/serviceAccountName", account.Name)
		s.set(podPath+"/serviceAccount", account.Name)
	}
	if account.MountToken != nil && spec.AutomountServiceAccountToken == nil {
		mount := *account.MountToken
		spec.AutomountServiceAccountToken = &mount
		s.set(podPath+"/automountServiceAccountToken", mount)
	}
}

// processOne warns of containers whose program would not start: with a shared PID namespace none of them is process 1.
func (s *session) processOne(spec *corev1.PodSpec) {
	for i := range spec.Containers {
		if init := workload.NeedsProcessOne(&spec.Containers[i]); init != "" {
			s.warn("container %q: %s must be process 1, which in an agent's Pod is another; set command to the program itself, under lifecycle-manager exec",
				spec.Containers[i].Name, init)
		}
	}
}

// serviceLinks keeps the kubelet from telling every container of all Services of the namespace; see the rule service-links.
// There is no warning: the API server has already put true where the user left the field out.
func (s *session) serviceLinks() {
	spec := &s.Spec.Template.Spec
	if links := spec.EnableServiceLinks; s.parts.keepServiceLinks || links != nil && !*links {
		return
	}
	no := false
	spec.EnableServiceLinks = &no
	s.set(podPath+"/enableServiceLinks", false)
}

// sidecar puts the sidecar in place, whatever stands under its name among the ordinary containers.
func (s *session) sidecar() {
	spec := &s.Spec.Template.Spec
	if containerIndex(spec.InitContainers, lifecycle.SidecarContainer) >= 0 {
		return // A second one of that name would be invalid; the sidecar-integrity rule refuses this one.
	}
	const path = podPath + "/containers"
	i := containerIndex(spec.Containers, lifecycle.SidecarContainer)
	switch {
	case !s.parts.HasSidecar():
		if i >= 0 && len(spec.Containers) > 1 {
			if !s.storedSidecar(spec.Containers[i]) {
				s.warn("container %q belongs to the system and was taken out: agents get none here", lifecycle.SidecarContainer)
			}
			removeFrom(&s.editor, &spec.Containers, i, path)
		}
		return
	case i < 0:
		if len(SidecarConflicts(spec, &s.parts.Sidecar)) == 0 {
			appendTo(&s.editor, &spec.Containers, path, s.parts.Sidecar)
		}
		return
	}
	if workload.Equal(&spec.Containers[i], &s.parts.Sidecar) {
		return
	}
	if !s.storedSidecar(spec.Containers[i]) {
		s.warn("container %q belongs to the system and was put back", lifecycle.SidecarContainer)
	}
	replaceIn(&s.editor, spec.Containers, i, path, s.parts.Sidecar)
}

// storedSidecar says whether the stored Deployment has the very same sidecar, so that it was not the user who wrote it.
func (s *session) storedSidecar(c corev1.Container) bool {
	if s.old == nil {
		return false
	}
	stored := s.old.Spec.Template.Spec.Containers
	i := containerIndex(stored, c.Name)
	return i >= 0 && workload.Equal(&stored[i], &c)
}

// volumes puts the volumes of the system in place.
func (s *session) volumes() {
	spec := &s.Spec.Template.Spec
	const path = podPath + "/volumes"
	var missing []corev1.Volume
	for _, want := range s.parts.Volumes {
		i := volumeIndex(spec.Volumes, want.Name)
		switch {
		case i < 0:
			missing = append(missing, want)
		case !workload.Equal(&spec.Volumes[i], &want) && !isBlockDevice(spec, want.Name):
			if !s.storedVolume(spec.Volumes[i]) {
				s.warn("volume %q belongs to the system and was put back", want.Name)
			}
			replaceIn(&s.editor, spec.Volumes, i, path, want)
		}
	}
	if i := volumeIndex(spec.Volumes, lifecycle.TokenVolume); i >= 0 && !s.parts.HasSidecar() {
		removeFrom(&s.editor, &spec.Volumes, i, path)
	}
	appendTo(&s.editor, &spec.Volumes, path, missing...)
}

// storedVolume says whether the stored Deployment has the very same volume, so that it was not the user who wrote it.
func (s *session) storedVolume(v corev1.Volume) bool {
	if s.old == nil {
		return false
	}
	stored := s.old.Spec.Template.Spec.Volumes
	i := volumeIndex(stored, v.Name)
	return i >= 0 && workload.Equal(&stored[i], &v)
}

func volumeIndex(volumes []corev1.Volume, name string) int {
	for i := range volumes {
		if volumes[i].Name == name {
			return i
		}
	}
	return -1
}
