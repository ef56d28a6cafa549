package main

import (
	"context"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// fillMarked makes n namespaces that are to go: the first by asking the API server, the others as copies of it.
func (c *cluster) fillMarked(ctx context.Context, n int) error {
	if err := c.addMarked(ctx, 0); err != nil {
		return err
	}
	m, err := c.modelOf(ctx, numbered("agent-gone-", 0))
	if err != nil {
		return err
	}
	return fill(ctx, "marked namespaces with a claim and a Deployment", 1, n, func(ctx context.Context, n int) error {
		return c.copyOf(ctx, m, numbered("agent-gone-", n))
	})
}

// addMarked makes the n-th namespace that is to go, as it is some time after its agent was scaled to nothing. What controllers would
// make there is there already, so that they come to rest soon.
func (c *cluster) addMarked(ctx context.Context, n int) error {
	name := numbered("agent-gone-", n)
	// Times before the namespace's own mean nothing, and neither does the future, which is past when the reaper comes.
	at := time.Now().Add(2 * time.Second).UTC().Format(time.RFC3339)
	ns := roleNamespace(name, map[string]string{
		lifecycle.AnnotationLastPodActivity: at, lifecycle.AnnotationIdleSince: at, lifecycle.AnnotationReaping: at,
		lifecycle.AnnotationPhase: at + " marked",
	})
	opts := metav1.CreateOptions{}
	if _, err := c.admin.CoreV1().Namespaces().Create(ctx, ns, opts); err != nil {
		return err
	}
	if _, err := c.admin.CoreV1().ServiceAccounts(name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, opts); err != nil {
		return err
	}
	ca := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt", Annotations: map[string]string{"kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."}},
		Data:       map[string]string{"ca.crt": string(c.Config.CAData)},
	}
	if _, err := c.admin.CoreV1().ConfigMaps(name).Create(ctx, ca, opts); err != nil {
		return err
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: systemNamespace, Name: installation.ServerAccount}},
	}
	if _, err := c.admin.RbacV1().RoleBindings(name).Create(ctx, binding, opts); err != nil {
		return err
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "worker-data", Labels: map[string]string{
			lifecycle.LabelDeployment: "worker", lifecycle.LabelUserType: string(lifecycle.Free),
		}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	if _, err := c.admin.CoreV1().PersistentVolumeClaims(name).Create(ctx, claim, opts); err != nil {
		return err
	}
	return c.addWorkload(ctx, name)
}

// addWorkload makes a Deployment of no replicas and its ReplicaSet.
func (c *cluster) addWorkload(ctx context.Context, namespace string) error {
	d, err := bench.Deployment("worker")
	if err != nil {
		return err
	}
	const revision, hash = "deployment.kubernetes.io/revision", "5d4f8c7b9"
	d.Spec.Replicas, d.Spec.Strategy.Type = new(int32), appsv1.RecreateDeploymentStrategyType
	d.Annotations = map[string]string{revision: "1"}
	d.Labels[lifecycle.LabelDeployment], d.Spec.Template.Labels[lifecycle.LabelDeployment] = d.Name, d.Name
	if d, err = c.admin.AppsV1().Deployments(namespace).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return err
	}
	now := metav1.Now()
	for t, reason := range map[appsv1.DeploymentConditionType]string{
		appsv1.DeploymentAvailable: "MinimumReplicasAvailable", appsv1.DeploymentProgressing: "NewReplicaSetAvailable",
	} {
		d.Status.Conditions = append(d.Status.Conditions, appsv1.DeploymentCondition{
			Type: t, Status: corev1.ConditionTrue, Reason: reason, LastUpdateTime: now, LastTransitionTime: now,
		})
	}
	d.Status.ObservedGeneration, d.Status.TerminatingReplicas = d.Generation, new(int32)
	if d, err = c.admin.AppsV1().Deployments(namespace).UpdateStatus(ctx, d, metav1.UpdateOptions{}); err != nil {
		return err
	}
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: d.Name + "-" + hash, Labels: map[string]string{},
			Annotations: map[string]string{
				revision: "1", "deployment.kubernetes.io/desired-replicas": "0", "deployment.kubernetes.io/max-replicas": "0",
			},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), Selector: d.Spec.Selector.DeepCopy(), Template: *d.Spec.Template.DeepCopy()},
	}
	for key, value := range d.Spec.Template.Labels {
		rs.Labels[key] = value
	}
	for _, labels := range []map[string]string{rs.Labels, rs.Spec.Selector.MatchLabels, rs.Spec.Template.Labels} {
		labels[appsv1.DefaultDeploymentUniqueLabelKey] = hash
	}
	if rs, err = c.admin.AppsV1().ReplicaSets(namespace).Create(ctx, rs, metav1.CreateOptions{}); err != nil {
		return err
	}
	rs.Status.ObservedGeneration, rs.Status.TerminatingReplicas = rs.Generation, new(int32)
	_, err = c.admin.AppsV1().ReplicaSets(namespace).UpdateStatus(ctx, rs, metav1.UpdateOptions{})
	return err
}
