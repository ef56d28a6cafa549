package reaper

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMentionedByTemplate(t *testing.T) {
	claims := []*corev1.PersistentVolumeClaim{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "agent-x", Name: "data", Annotations: map[string]string{"team.example.com/key": "blue"}},
		Spec:       corev1.PersistentVolumeClaimSpec{VolumeName: "pvc-1"},
	}}
	for _, tc := range []struct {
		name, template string
		want           bool
	}{
		{"data", "${pvc.name}", true},
		{"data-creds", "${pvc.name}-creds", true},
		{"other-creds", "${pvc.name}-creds", false},
		{"agent-x-data", "${pvc.namespace}-${pvc.name}", true},
		{"blue", "${pvc.annotations['team.example.com/key']}", true},
		{"red", "${pvc.annotations['team.example.com/key']}", false},
		{"red", "${pvc.annotations['absent']}", true}, // whatever that is to be
		{"pvc-1", "${pv.name}", true},
		{"pvc-2", "${pv.name}", false},
		{"anything", "${later.kinds}", true},
		{"data", "${pvc.name}[", true}, // no pattern
	} {
		if got := mentionedByTemplate(tc.name, []string{tc.template}, claims); got != tc.want {
			t.Errorf("%s by %s: %v, want %v", tc.name, tc.template, got, tc.want)
		}
	}
	if mentionedByTemplate("data", []string{"${pvc.name}"}, nil) {
		t.Error("a claim that is not there has a Secret")
	}
}
