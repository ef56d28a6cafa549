package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Memory holds thousands of objects: what no fact is made of must not be in it.
func TestStrip(t *testing.T) {
	full := newAgentDeployment("d", "data")
	full.ResourceVersion, full.UID = "7", "u"
	full.Annotations = map[string]string{"large": "thing", lifecycle.AnnotationDoNotReap: "true"}
	full.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "someone"}}
	full.Spec.Template.Spec.Volumes = append(full.Spec.Template.Spec.Volumes, corev1.Volume{Name: "other"})
	claim := full.Spec.Template.Spec.Volumes[0].VolumeSource
	want := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: covered, Name: "d", ResourceVersion: "7", UID: "u", Labels: full.Labels,
			Annotations: map[string]string{lifecycle.AnnotationDoNotReap: "true"}},
		Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "agent"}, {Name: lifecycle.SidecarContainer, Image: "example.org/sidecar"}},
			Volumes:    []corev1.Volume{{VolumeSource: claim}},
		}}},
	}
	strip := scope{names: []string{covered}}.strip
	got, err := strip(full)
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("covered (-want +got):\n%s", diff)
	}
	full.Namespace = "elsewhere"
	got, err = strip(full)
	must(t, err)
	bare := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "d", ResourceVersion: "7"}}
	if diff := cmp.Diff(bare, got); diff != "" {
		t.Errorf("not covered (-want +got):\n%s", diff)
	}
	if got, err := strip("a tombstone"); got != "a tombstone" || err != nil {
		t.Errorf("anything else: %v, %v", got, err)
	}
}
