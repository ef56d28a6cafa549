package integration

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// testControlledClaims keeps the volumes of claims that go with what controls them: a StatefulSet that deletes its
// claims, and an operator's custom resource. Both are deleted before the namespace is, as the reaper and the garbage
// collector do it.
func testControlledClaims(t *testing.T, c *archives) {
	const name = "agent-owner"
	c.define(t, "Database", "databases")
	c.define(t, "Widget", "widgets")
	ns := c.role(t, name)
	c.make(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "token", Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}},
		Type:       corev1.SecretTypeServiceAccountToken,
	})
	labels := map[string]string{"app": "db"}
	claimTemplate := claimOf(name, "data-db-0")
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "db"}, Spec: appsv1.StatefulSetSpec{
		Replicas: ptr[int32](1), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template:             corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: restrictedPod()},
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}, Spec: claimTemplate.Spec}},
		PersistentVolumeClaimRetentionPolicy: &appsv1.StatefulSetPersistentVolumeClaimRetentionPolicy{
			WhenDeleted: appsv1.DeletePersistentVolumeClaimRetentionPolicyType, WhenScaled: appsv1.RetainPersistentVolumeClaimRetentionPolicyType,
		},
	}}
	c.make(t, volumeFor(name, "data-db-0"), set)
	c.awaitBound(t, name, "data-db-0")
	eventually(t, "owner of the StatefulSet's claim", func() (bool, error) {
		claim := claimOf(name, "data-db-0")
		err := c.Get(t.Context(), client.ObjectKeyFromObject(claim), claim)
		return len(claim.OwnerReferences) == 1, err
	})
	c.scaleToZero(t, set)

	database := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.com/v1", "kind": "Database"}}
	database.SetNamespace(name)
	database.SetName("pg")
	c.make(t, database)
	owned := claimOf(name, "pg-1")
	owned.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(database, database.GroupVersionKind())}
	doomed := claimOf(name, "doomed")
	doomed.Finalizers = []string{"example.com/hold"}
	waiting := claimOf(name, "waiting")
	waiting.Spec.VolumeName = ""
	c.make(t, volumeFor(name, "pg-1"), owned, volumeFor(name, "doomed"), doomed, waiting)
	c.awaitBound(t, name, "pg-1")
	c.awaitBound(t, name, "doomed")
	if err := c.Delete(t.Context(), doomed); err != nil {
		t.Fatal(err)
	}
	c.scratch(t, name)

	c.save(t, ns, keepFor)
	for _, claim := range []string{"data", "data-db-0", "pg-1", "doomed"} {
		if pv := c.volume(t, name+"-"+claim); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
			t.Errorf("the volume of claim %s has the reclaim policy %s", claim, pv.Spec.PersistentVolumeReclaimPolicy)
		}
	}
	if pv := c.volume(t, name+"-worker-scratch"); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("the volume of a Pod's scratch space has the reclaim policy %s", pv.Spec.PersistentVolumeReclaimPolicy)
	}
	for _, owner := range []client.Object{set, database} {
		if err := c.Delete(t.Context(), owner, client.PropagationPolicy(metav1.DeletePropagationBackground)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "end of claims that something controls", func() (bool, error) {
		first := c.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "data-db-0"}, &corev1.PersistentVolumeClaim{})
		second := c.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "pg-1"}, &corev1.PersistentVolumeClaim{})
		return apierrors.IsNotFound(first) && apierrors.IsNotFound(second), nil
	})
	c.save(t, ns, keepFor) // the reaper does so again at each step
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(doomed), doomed); err != nil {
		t.Fatal(err)
	}
	doomed.Finalizers = nil
	if err := c.Update(t.Context(), doomed); err != nil {
		t.Fatal(err)
	}
	c.reap(t, ns)

	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(plugin, "restore", name, "--kubeconfig", c.plane.Kubeconfig())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, _ := cmd.Output()
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d\n%s\n%s", code, out, &stderr)
	}
	for _, want := range []string{
		"Database.example.com pg: archives hold no objects of this kind\n",
		"PersistentVolumeClaim worker-scratch: it is the scratch space of Pod worker (an ephemeral volume), and goes with it\n",
		"Secret token: it is the token of a ServiceAccount that will have another UID\n",
		"Widget.example.com",
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("the restore does not say %q:\n%s", want, &stderr)
		}
	}
	if strings.Contains(stderr.String(), "kube-root-ca.crt") || strings.Contains(stderr.String(), "doomed") {
		t.Errorf("the restore says of what is back that it was left out:\n%s", &stderr)
	}
	for _, claim := range []string{"data", "data-db-0", "pg-1", "doomed"} {
		c.awaitBound(t, name, claim)
	}
}

// define makes a kind of custom resources in the group example.com.
func (c *archives) define(t *testing.T, kind, resource string) {
	t.Helper()
	crd := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": map[string]any{"name": resource + ".example.com"},
		"spec": map[string]any{
			"group": "example.com", "scope": "Namespaced",
			"names": map[string]any{"kind": kind, "plural": resource, "singular": strings.ToLower(kind), "listKind": kind + "List"},
			"versions": []any{map[string]any{"name": "v1", "served": true, "storage": true, "schema": map[string]any{
				"openAPIV3Schema": map[string]any{"type": "object"},
			}}},
		},
	}}
	c.make(t, crd)
	eventually(t, "kind "+kind, func() (bool, error) {
		list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "example.com/v1", "kind": kind + "List"}}
		err := c.List(t.Context(), list)
		return err == nil, nil
	})
}

func (c *archives) scaleToZero(t *testing.T, set *appsv1.StatefulSet) {
	t.Helper()
	eventually(t, "scaled StatefulSet", func() (bool, error) {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(set), set); err != nil {
			return false, err
		}
		set.Spec.Replicas = ptr[int32](0)
		err := c.Update(t.Context(), set)
		return err == nil, client.IgnoreNotFound(ignoreConflict(err))
	})
	eventually(t, "end of the StatefulSet's Pod", func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKey{Namespace: set.Namespace, Name: set.Name + "-0"}, &corev1.Pod{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
}

func ignoreConflict(err error) error {
	if apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// scratch makes a Pod that has ended, with an ephemeral volume whose claim is bound.
func (c *archives) scratch(t *testing.T, namespace string) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "worker"}, Spec: restrictedPod()}
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "scratch", VolumeSource: corev1.VolumeSource{
		Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimOf(namespace, "worker-scratch").Spec}},
	}})
	c.make(t, volumeFor(namespace, "worker-scratch"), pod)
	c.awaitBound(t, namespace, "worker-scratch")
	pod.Status.Phase = corev1.PodSucceeded
	if err := c.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// testLateClaim keeps the volume of a claim that is bound after the archive was made, and says of it where it is
// brought back. A claim that a controller makes again in the place of one that was deleted is not kept once more.
func testLateClaim(t *testing.T, c *archives) {
	const name = "agent-late"
	ns := c.role(t, name)
	c.save(t, ns, keepFor)
	c.make(t, volumeFor(name, "late"), claimOf(name, "late"))
	c.awaitBound(t, name, "late")
	if err := c.Delete(t.Context(), claimOf(name, "data")); err != nil {
		t.Fatal(err)
	}
	again := claimOf(name, "data")
	again.Spec.VolumeName = name + "-again"
	volume := volumeFor(name, "data")
	volume.Name = name + "-again"
	eventually(t, "claim that is made again", func() (bool, error) {
		err := c.Create(t.Context(), again.DeepCopy())
		return err == nil, nil
	})
	c.make(t, volume)
	eventually(t, "bound volume", func() (bool, error) { return c.volume(t, volume.Name).Status.Phase == corev1.VolumeBound, nil })
	c.save(t, ns, keepFor)
	if pv := c.volume(t, name+"-late"); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Errorf("the volume of a claim that came late has the reclaim policy %s", pv.Spec.PersistentVolumeReclaimPolicy)
	}
	if pv := c.volume(t, volume.Name); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
		t.Errorf("the volume of a claim that was made again has the reclaim policy %s", pv.Spec.PersistentVolumeReclaimPolicy)
	}
	restored, err := c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{DryRun: true})
	if err != nil {
		t.Fatal(err)
	}
	want := "PersistentVolume agent-late-late: it is kept, and claim late was bound to it after the archive was made: bind a claim to it yourself"
	if got := fmt.Sprint(restored.LeftOut); !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
}

// testVolumeChangedBack: where a volume does not get the reclaim policy Retain, though its patch is accepted, nothing
// counts as kept.
func testVolumeChangedBack(t *testing.T, c *archives) {
	const name = "agent-stubborn"
	ns := c.role(t, name)
	ignored := fault(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodPatch && strings.Contains(r.URL.Path, "/persistentvolumes/") {
			_ = r.Body.Close()
			r.Body = io.NopCloser(strings.NewReader("{}"))
			r.ContentLength = 2
		}
		return rt.RoundTrip(r)
	})
	err := c.as(t, c.reaper, ignored.wrap, time.Now()).Save(t.Context(), ns, keepFor)
	if err == nil || !strings.Contains(err.Error(), "spec.persistentVolumeReclaimPolicy is Delete after it was set to Retain") {
		t.Errorf("got %v", err)
	}
	if indexes, _ := c.parts(t, name); len(indexes) != 0 {
		t.Error("there is an index though a volume is not kept")
	}
	if pv := c.volume(t, name+"-data"); pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "" {
		t.Errorf("the volume was written: %v", pv.Annotations)
	}
}
