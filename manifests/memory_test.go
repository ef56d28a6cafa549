package manifests

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Each program of the system knows its container's memory limit, and collects garbage before the kernel ends it.
func TestProgramsKnowTheirMemoryLimit(t *testing.T) {
	for _, installation := range installations {
		t.Run(installation, func(t *testing.T) {
			objects := render(t, installation)
			var pods []*corev1.PodSpec
			for _, d := range ofKind[appsv1.Deployment](t, objects, "Deployment") {
				if d.Namespace == "dexorder-system" {
					pods = append(pods, &d.Spec.Template.Spec)
				}
			}
			for _, c := range ofKind[batchv1.CronJob](t, objects, "CronJob") {
				pods = append(pods, &c.Spec.JobTemplate.Spec.Template.Spec)
			}
			if len(pods) == 0 {
				t.Fatal("no programs")
			}
			for _, pod := range pods {
				for i := range pod.Containers {
					checkMemoryLimit(t, &pod.Containers[i])
				}
			}
		})
	}
}

func checkMemoryLimit(t *testing.T, c *corev1.Container) {
	t.Helper()
	if c.Resources.Limits.Memory().IsZero() {
		t.Errorf("container %s has no memory limit", c.Name)
	}
	i := slices.IndexFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "GOMEMLIMIT" })
	if i < 0 || c.Env[i].ValueFrom == nil || c.Env[i].ValueFrom.ResourceFieldRef == nil ||
		c.Env[i].ValueFrom.ResourceFieldRef.Resource != "limits.memory" {
		t.Errorf("container %s is not told its memory limit by GOMEMLIMIT", c.Name)
	}
}
