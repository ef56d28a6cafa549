package policy_test

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// replicaSetOf is what the deployment controller makes.
func replicaSetOf(d *appsv1.Deployment) *appsv1.ReplicaSet {
	const hash = "6d4b75cb6d"
	template := d.Spec.Template.DeepCopy()
	template.Labels["pod-template-hash"] = hash
	return &appsv1.ReplicaSet{
		TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"},
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Namespace: d.Namespace, UID: "5e7a", Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{controller("Deployment", d.Name, "de91")},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: *template},
	}
}

// podOf is what the replicaset controller makes.
func podOf(r *appsv1.ReplicaSet) *corev1.Pod {
	template := r.Spec.Template.DeepCopy()
	return &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: r.Name + "-hx8zq", Namespace: r.Namespace, Labels: template.Labels,
			OwnerReferences: []metav1.OwnerReference{controller("ReplicaSet", r.Name, r.UID)},
		},
		Spec: template.Spec,
	}
}

func controller(kind, name string, uid types.UID) metav1.OwnerReference {
	yes := true
	return metav1.OwnerReference{
		APIVersion: "apps/v1", Kind: kind, Name: name, UID: uid, Controller: &yes, BlockOwnerDeletion: &yes,
	}
}
