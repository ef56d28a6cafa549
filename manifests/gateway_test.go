package manifests

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/keys"
)

// The gateway runs as the account that the policy and the registrations know, finds its files, and lets nobody in unless somebody
// has said whom.
func TestGateway(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		d := as[appsv1.Deployment](t, one(t, in.objects, "Deployment", "agent-gateway"))
		spec := d.Spec.Template.Spec
		if spec.ServiceAccountName != "gateway" || d.Namespace != "dexorder-system" {
			t.Errorf("it runs as %s/%s", d.Namespace, spec.ServiceAccountName)
		}
		if account := one(t, in.objects, "ServiceAccount", "gateway"); account.GetNamespace() != "dexorder-system" {
			t.Errorf("its account is in %s", account.GetNamespace())
		}
		container := spec.Containers[0]
		if server := in.container(t).Image; container.Image[strings.LastIndex(container.Image, ":"):] != server[strings.LastIndex(server, ":"):] {
			t.Errorf("its image is %s, the server's %s", container.Image, server)
		}
		for _, arg := range container.Args {
			if strings.HasPrefix(arg, "--allow") || strings.HasPrefix(arg, "--loopback") {
				t.Errorf("argument %s", arg)
			}
			_, file, ok := strings.Cut(arg, "=/etc/")
			if !ok {
				continue
			}
			if strings.HasPrefix(arg, "--activity-keys=") {
				checkKeysVolume(t, spec, "/etc/"+file)
				continue
			}
			content := fileIn(t, in, spec, "/etc/"+file)
			if content == "" {
				t.Errorf("argument %s: there is no such file", arg)
			}
			if strings.HasPrefix(arg, "--template=") {
				if _, err := gateway.ParseTemplate([]byte(content)); err != nil {
					t.Error(err)
				}
			}
		}
		service := as[corev1.Service](t, one(t, in.objects, "Service", "agent-gateway"))
		for key, value := range service.Spec.Selector {
			if d.Spec.Template.Labels[key] != value {
				t.Errorf("the Service selects %s=%s, the Pods have %v", key, value, d.Spec.Template.Labels)
			}
		}
		if grace := *spec.TerminationGracePeriodSeconds; grace < 5+30 {
			t.Errorf("its Pods get %d s, less than it serves on", grace)
		}
	})
}

// checkKeysVolume holds that the installation's keys are mounted at a path, and that the container starts without them: the server makes
// them, perhaps later.
func checkKeysVolume(t *testing.T, spec corev1.PodSpec, path string) {
	t.Helper()
	for _, mount := range spec.Containers[0].VolumeMounts {
		if mount.MountPath != path {
			continue
		}
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		secret := spec.Volumes[i].Secret
		if secret == nil || secret.SecretName != keys.SecretName || secret.Optional == nil || !*secret.Optional {
			t.Errorf("at %s is volume %v, want the optional Secret %s", path, spec.Volumes[i], keys.SecretName)
		}
		return
	}
	t.Errorf("nothing is mounted at %s", path)
}

// fileIn is what a container finds at a path, from a ConfigMap.
func fileIn(t *testing.T, in installed, spec corev1.PodSpec, path string) string {
	t.Helper()
	for _, mount := range spec.Containers[0].VolumeMounts {
		name, ok := strings.CutPrefix(path, mount.MountPath+"/")
		if !ok {
			continue
		}
		i := slices.IndexFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		return as[corev1.ConfigMap](t, one(t, in.objects, "ConfigMap", spec.Volumes[i].ConfigMap.Name)).Data[name]
	}
	return ""
}
