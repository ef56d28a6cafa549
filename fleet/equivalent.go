package fleet

import (
	appsv1 "k8s.io/api/apps/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/image"
	"github.com/dexorder/agent-lifecycle/workload"
)

// acceptEquivalents writes into a Deployment what would be injected today, where what is stored means the same to its
// Pod. Whatever an agent would be restarted for is left as it is.
func (j *Judge) acceptEquivalents(d *appsv1.Deployment) {
	if !Adopted(d) {
		return
	}
	// The template has said since some version which container is the agent. Before, the Pod's mounts told it, and
	// they still do.
	template := &d.Spec.Template
	if _, has := template.Annotations[lifecycle.AnnotationAgentContainer]; !has {
		i, err := workload.AgentContainer(template)
		if err == nil && template.Spec.Containers[i].Name != lifecycle.AgentContainer {
			if template.Annotations == nil {
				template.Annotations = map[string]string{}
			}
			template.Annotations[lifecycle.AnnotationAgentContainer] = template.Spec.Containers[i].Name
		}
	}
	// Others may rewrite images to those of a mirror, and would do so again after each upgrade.
	if sidecar := policy.SidecarOf(d); sidecar != nil && j.mirrorsSidecar(sidecar.Image) {
		sidecar.Image = j.file.Sidecar.Image
	}
}

// mirrorsSidecar says whether an image is today's sidecar from another repository that the policy accepts: of the
// same digest, or of the same tag where neither has a digest.
func (j *Judge) mirrorsSidecar(name string) bool {
	today, err := image.Parse(j.file.Sidecar.Image)
	if err != nil {
		return false
	}
	have, err := image.Parse(name)
	if err != nil || have.Repository() == today.Repository() {
		return false
	}
	accepted, err := image.ParseList(j.file.Sidecar.AcceptedImages)
	if err != nil || accepted.Allows(name) != nil {
		return false
	}
	if today.Digest != "" || have.Digest != "" {
		return today.Digest == have.Digest
	}
	return today.Tag == have.Tag
}
