package gateway

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// want is what an agent should be.
type want struct {
	name, user string
	userType   lifecycle.UserType

	// deletes says whether the user type's storage goes with the agent.
	deletes bool

	asked remembered

	// template is the hash of the template that agents are made of now.
	template string
}

// mark writes who the agent is onto one of its objects.
func (w *want) mark(meta *metav1.ObjectMeta) {
	metav1.SetMetaDataLabel(meta, lifecycle.LabelDeployment, w.name)
	metav1.SetMetaDataLabel(meta, lifecycle.LabelUserType, string(w.userType))
	metav1.SetMetaDataAnnotation(meta, lifecycle.AnnotationUser, escapeUser(w.user))
}

// newDeployment completes the template's.
func (w *want) newDeployment(d *appsv1.Deployment) *appsv1.Deployment {
	w.mark(&d.ObjectMeta)
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, lifecycle.AnnotationRequest, w.asked.annotation())
	origin{w.template, 1}.write(&d.ObjectMeta)
	metav1.SetMetaDataLabel(&d.Spec.Template.ObjectMeta, lifecycle.LabelDeployment, w.name)
	metav1.SetMetaDataLabel(&d.Spec.Template.ObjectMeta, lifecycle.LabelUserType, string(w.userType))
	c := agentContainer(&d.Spec.Template)
	if w.asked.Image != "" {
		c.Image = w.asked.Image
	}
	setEnv(c, nil, w.asked.Env, nil)
	return d
}

// changedDeployment returns the stored one with what differs from what is wanted changed, nil if nothing does. Whatever else is in
// it was put there on admission or by somebody who had a reason, and stays. fresh is the template's.
func (w *want) changedDeployment(stored, fresh *appsv1.Deployment) *appsv1.Deployment {
	d, before := stored.DeepCopy(), recall(stored.Annotations)
	w.mark(&d.ObjectMeta)
	if stored.Labels[lifecycle.LabelUserType] != string(w.userType) {
		metav1.SetMetaDataLabel(&d.Spec.Template.ObjectMeta, lifecycle.LabelUserType, string(w.userType))
	}
	metav1.SetMetaDataAnnotation(&d.ObjectMeta, lifecycle.AnnotationRequest, w.asked.annotation())
	if c := agentContainer(&d.Spec.Template); c != nil {
		if w.asked.Image != before.Image {
			c.Image = w.asked.Image
		}
		if !maps.Equal(before.Env, w.asked.Env) {
			setEnv(c, before.Env, w.asked.Env, agentContainer(&fresh.Spec.Template).Env)
		}
	}
	if equality.Semantic.DeepEqual(d, stored) {
		return nil
	}
	return d
}

// mendedDeployment is changedDeployment for an agent that may never have been ready: one that has failed to start takes the template
// of today, since nothing of it runs or has run that would be lost. Otherwise it would stay broken for ever. fresh is not to be used
// afterwards.
func (w *want) mendedDeployment(stored, fresh *appsv1.Deployment, pod *corev1.Pod, now time.Time) *appsv1.Deployment {
	changed := w.changedDeployment(stored, fresh)
	if !neverReady(stored) {
		return changed
	}
	from := originOf(stored)
	if from.template != w.template && startFailed(stored, pod, now) {
		from.template = w.template
		if changed == nil {
			changed = stored.DeepCopy()
		}
		changed.Spec.Template = w.newDeployment(fresh).Spec.Template
	}
	if changed == nil || equality.Semantic.DeepEqual(changed.Spec.Template, stored.Spec.Template) {
		return changed
	}
	from.revision++
	from.write(&changed.ObjectMeta)
	return changed
}

// setEnv takes the variables out that were asked for before, puts those in that are asked for now, and brings the template's own back
// that had been asked for otherwise.
func setEnv(c *corev1.Container, before, now map[string]string, template []corev1.EnvVar) {
	c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
		_, was := before[e.Name]
		_, is := now[e.Name]
		return was || is
	})
	for _, e := range template {
		_, was := before[e.Name]
		if _, is := now[e.Name]; was && !is {
			c.Env = append(c.Env, e)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		// Kubernetes would expand $(NAME) in it, and takes $$ for $.
		c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: strings.ReplaceAll(now[name], "$", "$$")})
	}
}

// newClaim completes the template's. agent is the stored Deployment.
func (w *want) newClaim(c *corev1.PersistentVolumeClaim, agent *appsv1.Deployment) *corev1.PersistentVolumeClaim {
	w.markClaim(c)
	if w.deletes {
		c.OwnerReferences = owned(nil, agent)
	}
	return c
}

// changedClaim returns the stored one with what differs from what is wanted changed, nil if nothing does. agent is the stored
// Deployment, nil while there is none or it is not yet what is wanted: then no owner is added. In one step the claim gets the user
// type and loses the owner that would take it along. A claim with a mark of protection gets no owner, since the reaper
// alone looks at when a protection ends.
func (w *want) changedClaim(stored *corev1.PersistentVolumeClaim, agent *appsv1.Deployment) *corev1.PersistentVolumeClaim {
	c := stored.DeepCopy()
	w.markClaim(c)
	switch {
	case !w.deletes:
		c.OwnerReferences = slices.DeleteFunc(c.OwnerReferences, isDeployment)
	case agent != nil && lifecycle.ProtectionMarks(stored.Labels, stored.Annotations) == nil:
		c.OwnerReferences = owned(c.OwnerReferences, agent)
	}
	if equality.Semantic.DeepEqual(c, stored) {
		return nil
	}
	return c
}

func (w *want) markClaim(c *corev1.PersistentVolumeClaim) {
	w.mark(&c.ObjectMeta)
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, lifecycle.AnnotationRequest, w.asked.annotation())
}

// newService completes the template's. It goes with the agent, whatever the user type.
func (w *want) newService(s *corev1.Service, agent *appsv1.Deployment) *corev1.Service {
	w.mark(&s.ObjectMeta)
	s.OwnerReferences = owned(nil, agent)
	return s
}

// changedService returns the stored one with its labels, annotations and owner as they are wanted, nil if they are. Its
// spec stays: the cluster IP of a Service cannot be changed, and the gateway may not delete one that was made before
// Services were headless.
func (w *want) changedService(stored *corev1.Service, agent *appsv1.Deployment) *corev1.Service {
	s := stored.DeepCopy()
	w.mark(&s.ObjectMeta)
	s.OwnerReferences = owned(s.OwnerReferences, agent)
	if equality.Semantic.DeepEqual(s, stored) {
		return nil
	}
	return s
}

// owned makes the agent the one Deployment among the owners. It blocks the Deployment's deletion, so that the name stays taken until
// the object has gone and a quick return cannot meet what is dying.
func owned(owners []metav1.OwnerReference, agent *appsv1.Deployment) []metav1.OwnerReference {
	if i := slices.IndexFunc(owners, isDeployment); i >= 0 && owners[i].UID == agent.UID {
		return owners
	}
	return append(slices.DeleteFunc(slices.Clone(owners), isDeployment), metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: "Deployment", Name: agent.Name, UID: agent.UID, BlockOwnerDeletion: new(true),
	})
}

func isDeployment(o metav1.OwnerReference) bool { return o.Kind == "Deployment" }
