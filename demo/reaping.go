package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	scout  = "agent-scout"
	keeper = "agent-keeper"
	ghost  = "agent-ghost"
)

// reapNamespace lets a role agent's namespace go quiet beside one that somebody protects and one that is somebody else's.
func (d *demo) reapNamespace(ctx context.Context) error {
	if err := d.hurryReaper(); err != nil {
		return err
	}
	d.say("the policy now takes 10 s without a Pod for the end of a role agent, instead of an hour, and looks every second")
	feed, err := d.follow(ctx)
	if err != nil {
		return err
	}
	defer feed.stop()
	for _, name := range []string{scout, keeper, ghost} {
		if err := d.createRole(ctx, name); err != nil {
			return err
		}
	}
	d.say("%s has an agent with a claim. %s has none and says do-not-reap, %s is of an org that is not listed", scout, keeper, ghost)
	if err := d.await(ctx, "event", func(context.Context) (bool, error) {
		return feed.heard("namespaces/"+scout, "namespace.active"), nil
	}); err != nil {
		return err
	}
	worker := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: scout, Name: "worker"}}
	if err := d.client.Patch(ctx, worker, client.RawPatch("application/merge-patch+json", []byte(`{"spec": {"replicas": 0}}`))); err != nil {
		return err
	}
	d.say("the agent of %s is scaled to 0; nobody does anything from here on", scout)
	if err := d.await(ctx, "mark", func(ctx context.Context) (bool, error) {
		ns := &corev1.Namespace{}
		err := d.client.Get(ctx, client.ObjectKey{Name: scout}, ns)
		return ns.Annotations[lifecycle.AnnotationReaping] != "" || apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	}); err != nil {
		return err
	}
	d.tryAgain(ctx)
	if err := d.await(ctx, "end of the namespace", func(ctx context.Context) (bool, error) {
		return apierrors.IsNotFound(d.client.Get(ctx, client.ObjectKey{Name: scout}, &corev1.Namespace{})), nil
	}); err != nil {
		return err
	}
	for _, name := range []string{keeper, ghost} {
		ns := &corev1.Namespace{}
		if err := d.client.Get(ctx, client.ObjectKey{Name: name}, ns); err != nil || ns.DeletionTimestamp != nil {
			return fmt.Errorf("%s should have been kept: %w", name, err)
		}
	}
	d.say("%s is gone: its workload first, then its claim, then the namespace. %s and %s are untouched", scout, keeper, ghost)
	return nil
}

// tryAgain shows that a marked namespace takes nothing new. It may have gone by then.
func (d *demo) tryAgain(ctx context.Context) {
	late := d.worker(scout, 1)
	late.Name = "latecomer"
	if err := d.client.Create(ctx, late, client.DryRunAll); err != nil && strings.Contains(err.Error(), "is being reaped") {
		d.say("a new workload there is refused: %v", err)
	}
}

// hurryReaper shortens the policy's times to the demo's.
func (d *demo) hurryReaper() error {
	policy, err := os.ReadFile(d.installation.PolicyFile)
	if err != nil {
		return err
	}
	changed := regexp.MustCompile(`(?m)^ {2}interval: 1m`).ReplaceAllString(string(policy), "  interval: 1s")
	changed = regexp.MustCompile(`(?m)^ {4}idleAfter: 1h`).ReplaceAllString(changed, "    idleAfter: 10s")
	if changed == string(policy) {
		return fmt.Errorf("%s says nothing of the reaper's times", d.options.Policy)
	}
	return d.installation.WritePolicy([]byte(changed))
}

// createRole makes a role agent's namespace, as its template does.
func (d *demo) createRole(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{}, Labels: map[string]string{
		lifecycle.LabelAgentRole: strings.TrimPrefix(name, lifecycle.RoleNamespacePrefix), lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: "demo",
	}}}
	switch name {
	case keeper:
		ns.Annotations[lifecycle.AnnotationDoNotReap] = "true"
	case ghost:
		ns.Labels[lifecycle.LabelOrg] = "somebody-else"
	}
	objects := []client.Object{ns, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: installation.SystemNamespace, Name: installation.ServerAccount}},
	}}
	if name == scout {
		objects = append(objects, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker-data", Labels: map[string]string{lifecycle.LabelDeployment: "worker"}},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}, d.worker(name, 1))
	}
	for _, o := range objects {
		if err := d.client.Create(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// worker is a role's agent.
func (d *demo) worker(namespace string, replicas int32) *appsv1.Deployment {
	quantities := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	labels := map[string]string{"app": "worker"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "worker"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{
						Name: "agent", Image: "ghcr.io/dexorder/agent:v1", Resources: corev1.ResourceRequirements{Limits: quantities, Requests: quantities},
						VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
					}},
					Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
						PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "worker-data"},
					}}},
				},
			},
		},
	}
}

func (d *demo) await(ctx context.Context, what string, done func(context.Context) (bool, error)) error {
	if err := wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, sceneTimeout, true, done); err != nil {
		return errors.Join(fmt.Errorf("no %s within %s", what, sceneTimeout), err)
	}
	return nil
}
