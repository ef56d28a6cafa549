package manifests

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
)

// Whoever publishes is told where NATS is, and as whom to speak to it, wherever it runs.
func TestNATS(t *testing.T) {
	const with = " with components/nats and components/nats-credentials"
	for _, tc := range []struct {
		installation string
		reaper       func(*testing.T, string) corev1.PodSpec
	}{
		{"overlays/dev" + with, func(t *testing.T, name string) corev1.PodSpec {
			return as[appsv1.Deployment](t, one(t, render(t, name), "Deployment", "lifecycle-webhook")).Spec.Template.Spec
		}},
		{"overlays/dev" + with, func(t *testing.T, name string) corev1.PodSpec {
			return as[appsv1.Deployment](t, one(t, render(t, name), "Deployment", "agent-gateway")).Spec.Template.Spec
		}},
		{"overlays/prod" + with, func(t *testing.T, name string) corev1.PodSpec {
			return as[appsv1.Deployment](t, one(t, render(t, name), "Deployment", "lifecycle-reaper")).Spec.Template.Spec
		}},
		{"overlays/staging with components/reaper-cronjob and components/nats and components/nats-credentials", func(t *testing.T, name string) corev1.PodSpec {
			return as[batchv1.CronJob](t, one(t, render(t, name), "CronJob", "lifecycle-reaper")).Spec.JobTemplate.Spec.Template.Spec
		}},
	} {
		t.Run(tc.installation, func(t *testing.T) {
			spec := tc.reaper(t, tc.installation)
			container := spec.Containers[0]
			for _, arg := range []string{"--nats-url=$(NATS_URL)", "--nats-credentials=/etc/nats/user.creds", "--event-id-key=/etc/agent-lifecycle-keys/event-ids.key"} {
				if !slices.Contains(container.Args, arg) {
					t.Errorf("args %q lack %s", container.Args, arg)
				}
			}
			url := slices.IndexFunc(container.Env, func(e corev1.EnvVar) bool { return e.Name == "NATS_URL" })
			if url < 0 || container.Env[url].ValueFrom.ConfigMapKeyRef.Name != "lifecycle-nats" {
				t.Errorf("env %v does not say where NATS is", container.Env)
			}
			if !slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool {
				return v.Name == "nats" && v.Secret != nil && v.Secret.SecretName == "lifecycle-nats"
			}) {
				t.Errorf("volumes %v hold no credentials", spec.Volumes)
			}
			// The gateway mounts the whole Secret, for it signs with another key of it.
			if container.Name != "gateway" {
				checkEventIDKey(t, &spec)
			}
			one(t, render(t, tc.installation), "ConfigMap", "lifecycle-nats")
		})
	}
}

// A Pod must start without the Secret, and reads no key of it but the one it needs.
func checkEventIDKey(t *testing.T, spec *corev1.PodSpec) {
	t.Helper()
	mounts := spec.Containers[0].VolumeMounts
	i := slices.IndexFunc(mounts, func(m corev1.VolumeMount) bool { return m.MountPath == "/etc/agent-lifecycle-keys" })
	if i < 0 {
		t.Fatalf("mounts %v lack the key of event ids", mounts)
	}
	j := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == mounts[i].Name })
	if j < 0 || spec.Volumes[j].Secret == nil {
		t.Fatalf("volume %s is no Secret", mounts[i].Name)
	}
	s := spec.Volumes[j].Secret
	if s.SecretName != "lifecycle-keys" || s.Optional == nil || !*s.Optional ||
		!slices.Equal(s.Items, []corev1.KeyToPath{{Key: "event-ids.key", Path: "event-ids.key"}}) {
		t.Errorf("volume %s is %+v, want event-ids.key of lifecycle-keys, optional", mounts[i].Name, s)
	}
}
