package archive

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// serverMetadata is set by the API server, or names UIDs that will not come back.
var serverMetadata = []string{
	"uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
	"managedFields", "selfLink", "ownerReferences", "finalizers",
}

// staleAnnotations were true of the object that is gone. Those of claims would make Kubernetes take a restored claim for one that has
// lost its volume.
var staleAnnotations = []string{
	lifecycle.AnnotationLastPodActivity,
	lifecycle.AnnotationIdleSince,
	lifecycle.AnnotationSightings,
	lifecycle.AnnotationReaping,
	lifecycle.AnnotationPhase,
	lifecycle.AnnotationUnhealthy,
	lifecycle.AnnotationDrift,
	lifecycle.AnnotationOrphanedSince,
	lifecycle.AnnotationCreatedByPod,
	lifecycle.AnnotationRestoredFrom,
	"deployment.kubernetes.io/revision",
	"deprecated.daemonset.template.generation",
	"pv.kubernetes.io/bind-completed",
	"pv.kubernetes.io/bound-by-controller",
	"volume.beta.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/storage-provisioner",
	"volume.kubernetes.io/selected-node",
	"volume.kubernetes.io/storage-resizer",
}

// staleLabels likewise. The API server sets a namespace's name by itself.
var staleLabels = []string{lifecycle.LabelCreatedByPodUID, corev1.LabelMetadataName}

// jobLabels name a Job's UID, in its selector and on its template.
var jobLabels = []string{"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"}

// finished Jobs would run once more when they are restored.
func finished(job *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(job.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		condition, _ := c.(map[string]any)
		return condition["status"] == "True" && (condition["type"] == "Complete" || condition["type"] == "Failed")
	})
}

// clean returns a copy of an object as somebody would write it to get the same again.
func clean(object *unstructured.Unstructured) *unstructured.Unstructured {
	o := object.DeepCopy()
	delete(o.Object, "status")
	for _, field := range serverMetadata {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	removeKeys(o.Object, staleAnnotations, "metadata", "annotations")
	removeKeys(o.Object, staleLabels, "metadata", "labels")
	switch o.GetKind() {
	case "Namespace":
		// Its finalizers are the API server's.
		delete(o.Object, "spec")
	case "Service":
		cleanService(o)
	case "ServiceAccount":
		// Token Secrets, which are not kept.
		delete(o.Object, "secrets")
	case kindClaim:
		unstructured.RemoveNestedField(o.Object, "spec", "volumeName")
	case "Job":
		cleanJob(o)
	}
	return o
}

func cleanService(o *unstructured.Unstructured) {
	if ip, _, _ := unstructured.NestedString(o.Object, "spec", "clusterIP"); ip != corev1.ClusterIPNone {
		unstructured.RemoveNestedField(o.Object, "spec", "clusterIP")
		unstructured.RemoveNestedField(o.Object, "spec", "clusterIPs")
	}
	unstructured.RemoveNestedField(o.Object, "spec", "healthCheckNodePort")
}

func cleanJob(o *unstructured.Unstructured) {
	if manual, _, _ := unstructured.NestedBool(o.Object, "spec", "manualSelector"); manual {
		return
	}
	unstructured.RemoveNestedField(o.Object, "spec", "selector")
	removeKeys(o.Object, jobLabels, "metadata", "labels")
	removeKeys(o.Object, jobLabels, "spec", "template", "metadata", "labels")
}

// removeKeys removes keys from a map of strings, and the map if it has no others.
func removeKeys(object map[string]any, keys []string, path ...string) {
	values, found, err := unstructured.NestedMap(object, path...)
	if err != nil || !found {
		return
	}
	maps.DeleteFunc(values, func(key string, _ any) bool { return slices.Contains(keys, key) })
	if len(values) == 0 {
		unstructured.RemoveNestedField(object, path...)
		return
	}
	// It cannot fail: the path was there.
	_ = unstructured.SetNestedMap(object, values, path...)
}

// withoutValues takes the values out of a cleaned Secret and returns the keys they had. What kubectl apply noted goes as
// well: it repeats the values.
func withoutValues(secret *unstructured.Unstructured) (keys []string) {
	data, _, _ := unstructured.NestedMap(secret.Object, "data")
	keys = slices.Sorted(maps.Keys(data))
	delete(secret.Object, "data")
	delete(secret.Object, "stringData")
	removeKeys(secret.Object, []string{corev1.LastAppliedConfigAnnotation}, "metadata", "annotations")
	return keys
}
