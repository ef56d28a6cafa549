package webhook

import (
	"fmt"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// The kinds that facts are made of.
var (
	deploymentKind            = kind("apps", "Deployment")
	replicaSetKind            = kind("apps", "ReplicaSet")
	statefulSetKind           = kind("apps", "StatefulSet")
	daemonSetKind             = kind("apps", "DaemonSet")
	jobKind                   = kind("batch", "Job")
	cronJobKind               = kind("batch", "CronJob")
	replicationControllerKind = kind("", "ReplicationController")
	claimKind                 = kind("", "PersistentVolumeClaim")
	podKind                   = kind("", "Pod")
)

// metadataOnly are remembered by their metadata, beside Deployments, of which a little more is needed.
var metadataOnly = []schema.GroupVersionKind{replicaSetKind, jobKind, claimKind}

// newScheme knows the types that are read as such, and no more: every type costs memory.
func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, admissionregistrationv1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("scheme: %w", err)
		}
	}
	scheme.AddKnownTypes(corev1.SchemeGroupVersion, &corev1.Pod{}, &corev1.PodList{})
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	return scheme, nil
}

// newMapper knows the resources of all kinds that are read, so that none have to be discovered.
func newMapper() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, gvk := range append([]schema.GroupVersionKind{
		deploymentKind, statefulSetKind, daemonSetKind, cronJobKind, replicationControllerKind, podKind,
	}, metadataOnly...) {
		mapper.Add(gvk, meta.RESTScopeNamespace)
		// A cache of several namespaces asks for the list's kind, which a mapper from discovery knows too.
		mapper.Add(gvk.GroupVersion().WithKind(gvk.Kind+"List"), meta.RESTScopeNamespace)
	}
	for _, name := range []string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"} {
		mapper.Add(admissionregistrationv1.SchemeGroupVersion.WithKind(name), meta.RESTScopeRoot)
	}
	return mapper
}

// strip cuts an object down to what facts are made of. Of a namespace that is not covered only names are left.
func (s scope) strip(in any) (any, error) {
	switch o := in.(type) {
	case *appsv1.Deployment:
		if !s.covers(o.Namespace) {
			return &appsv1.Deployment{ObjectMeta: key(o)}, nil
		}
		return stripDeployment(o), nil
	case *metav1.PartialObjectMetadata:
		stripped := &metav1.PartialObjectMetadata{TypeMeta: o.TypeMeta, ObjectMeta: key(o)}
		if s.covers(o.Namespace) {
			stripped.ObjectMeta = identity(o)
		}
		return stripped, nil
	}
	return in, nil
}

// key is the least that a cache can do with.
func key(o client.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.GetNamespace(), Name: o.GetName(), ResourceVersion: o.GetResourceVersion()}
}

func identity(o client.Object) metav1.ObjectMeta {
	m := key(o)
	m.UID, m.Labels, m.OwnerReferences = o.GetUID(), o.GetLabels(), o.GetOwnerReferences()
	m.CreationTimestamp, m.DeletionTimestamp = o.GetCreationTimestamp(), o.GetDeletionTimestamp()
	for _, mark := range lifecycle.ProtectionMarks(nil, o.GetAnnotations()) {
		metav1.SetMetaDataAnnotation(&m, mark.Key, mark.Value)
	}
	return m
}

// stripDeployment keeps identity, sidecar, the name of the agent's container, and the volumes that are claims or the system's.
func stripDeployment(d *appsv1.Deployment) *appsv1.Deployment {
	stripped := &appsv1.Deployment{ObjectMeta: identity(d)}
	kept, pod := &stripped.Spec.Template.Spec, &d.Spec.Template.Spec
	// Beside the sidecar it is the only container that is left, by which it is known again.
	if agent := policy.AgentContainerOf(d); agent != "" {
		kept.Containers = append(kept.Containers, corev1.Container{Name: agent})
	}
	if sidecar := policy.SidecarOf(d); sidecar != nil {
		kept.Containers = append(kept.Containers, *sidecar)
	}
	for i := range pod.Volumes {
		if claim := pod.Volumes[i].PersistentVolumeClaim; claim != nil {
			kept.Volumes = append(kept.Volumes, corev1.Volume{
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim},
			})
		}
	}
	kept.Volumes = append(kept.Volumes, policy.InjectedVolumes(d)...)
	return stripped
}

// claimIndex finds Deployments by the claims that they mount.
const claimIndex = "claims"

func mountedClaims(o client.Object) []string {
	d, ok := o.(*appsv1.Deployment)
	if !ok {
		return nil
	}
	return workload.Claims(&d.Spec.Template.Spec)
}
