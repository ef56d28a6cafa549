package workload

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestEqual(t *testing.T) {
	memory := func(s string) corev1.Container {
		return corev1.Container{Resources: corev1.ResourceRequirements{
			Limits: corev1.ResourceList{"memory": resource.MustParse(s)},
		}}
	}
	for _, tc := range []struct {
		name string
		a, b corev1.Container
		want bool
	}{
		{"same", memory("1Gi"), memory("1Gi"), true},
		{"written differently", memory("1Gi"), memory("1024Mi"), true},
		{"absent and empty", corev1.Container{}, corev1.Container{Env: []corev1.EnvVar{}}, true},
		{"more", memory("1Gi"), memory("2Gi"), false},
		{"other name", corev1.Container{Name: "a"}, corev1.Container{Name: "b"}, false},
	} {
		if got := Equal(&tc.a, &tc.b); got != tc.want {
			t.Errorf("%s: Equal is %t, want %t", tc.name, got, tc.want)
		}
	}
}
