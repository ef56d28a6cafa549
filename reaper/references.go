package reaper

import (
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// podTemplates returns what a workload makes Pods of.
func podTemplates(o runtime.Object) []*corev1.PodTemplateSpec {
	switch o := o.(type) {
	case *appsv1.Deployment:
		return []*corev1.PodTemplateSpec{&o.Spec.Template}
	case *appsv1.ReplicaSet:
		return []*corev1.PodTemplateSpec{&o.Spec.Template}
	case *appsv1.StatefulSet:
		return []*corev1.PodTemplateSpec{&o.Spec.Template}
	case *appsv1.DaemonSet:
		return []*corev1.PodTemplateSpec{&o.Spec.Template}
	case *corev1.ReplicationController:
		if o.Spec.Template != nil {
			return []*corev1.PodTemplateSpec{o.Spec.Template}
		}
	case *batchv1.Job:
		return []*corev1.PodTemplateSpec{&o.Spec.Template}
	case *batchv1.CronJob:
		return []*corev1.PodTemplateSpec{&o.Spec.JobTemplate.Spec.Template}
	}
	return nil
}

// podSpecs returns the Pods that an object is, or makes.
func podSpecs(o runtime.Object) []*corev1.PodSpec {
	if p, is := o.(*corev1.Pod); is {
		return []*corev1.PodSpec{&p.Spec}
	}
	var specs []*corev1.PodSpec
	for _, template := range podTemplates(o) {
		specs = append(specs, &template.Spec)
	}
	return specs
}

// annotate adds the names that annotations mention: those by which others are told what to inject, or when to restart
// it.
func (s *surroundings) annotate(annotations map[string]string) {
	for key, value := range annotations {
		if key == corev1.LastAppliedConfigAnnotation || strings.HasPrefix(key, lifecycle.Prefix) {
			continue
		}
		for _, name := range namesIn(value) {
			s.annotated[name] = true
		}
	}
}

// refer adds the ConfigMaps and Secrets that a Pod refers to.
func (s *surroundings) refer(spec *corev1.PodSpec) {
	configMap := func(name string) { s.references["ConfigMap/"+name] = true }
	secret := func(name string) { s.references["Secret/"+name] = true }
	for i := range spec.ImagePullSecrets {
		secret(spec.ImagePullSecrets[i].Name)
	}
	for i := range spec.Volumes {
		referVolume(&spec.Volumes[i].VolumeSource, configMap, secret)
	}
	for i := range spec.InitContainers {
		referContainer(spec.InitContainers[i].Env, spec.InitContainers[i].EnvFrom, configMap, secret)
	}
	for i := range spec.Containers {
		referContainer(spec.Containers[i].Env, spec.Containers[i].EnvFrom, configMap, secret)
	}
	for i := range spec.EphemeralContainers {
		referContainer(spec.EphemeralContainers[i].Env, spec.EphemeralContainers[i].EnvFrom, configMap, secret)
	}
}

func referContainer(env []corev1.EnvVar, from []corev1.EnvFromSource, configMap, secret func(string)) {
	for i := range env {
		source := env[i].ValueFrom
		if source == nil {
			continue
		}
		if source.ConfigMapKeyRef != nil {
			configMap(source.ConfigMapKeyRef.Name)
		}
		if source.SecretKeyRef != nil {
			secret(source.SecretKeyRef.Name)
		}
	}
	for i := range from {
		if from[i].ConfigMapRef != nil {
			configMap(from[i].ConfigMapRef.Name)
		}
		if from[i].SecretRef != nil {
			secret(from[i].SecretRef.Name)
		}
	}
}

// referVolume knows every source that names a ConfigMap or a Secret of the Pod's own namespace.
func referVolume(v *corev1.VolumeSource, configMap, secret func(string)) {
	local := func(r *corev1.LocalObjectReference) {
		if r != nil {
			secret(r.Name)
		}
	}
	switch {
	case v.ConfigMap != nil:
		configMap(v.ConfigMap.Name)
	case v.Secret != nil:
		secret(v.Secret.SecretName)
	case v.CSI != nil:
		local(v.CSI.NodePublishSecretRef)
	case v.Projected != nil:
		for i := range v.Projected.Sources {
			if s := v.Projected.Sources[i].ConfigMap; s != nil {
				configMap(s.Name)
			}
			if s := v.Projected.Sources[i].Secret; s != nil {
				secret(s.Name)
			}
		}
	case v.AzureFile != nil:
		secret(v.AzureFile.SecretName)
	case v.CephFS != nil:
		local(v.CephFS.SecretRef)
	case v.Cinder != nil:
		local(v.Cinder.SecretRef)
	case v.FlexVolume != nil:
		local(v.FlexVolume.SecretRef)
	case v.ISCSI != nil:
		local(v.ISCSI.SecretRef)
	case v.RBD != nil:
		local(v.RBD.SecretRef)
	case v.ScaleIO != nil:
		local(v.ScaleIO.SecretRef)
	case v.StorageOS != nil:
		local(v.StorageOS.SecretRef)
	}
}
