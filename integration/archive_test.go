package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// archives is a control plane with role agents' namespaces on it, and nothing of ours but the system's namespace.
type archives struct {
	client.Client
	plane *controlplane.ControlPlane

	// reaper has the rights that Save and Release need, and no others. secretsReaper may keep values of Secrets, too.
	reaper        *rest.Config
	secretsReaper *rest.Config
}

// TestArchive keeps namespaces, deletes them and brings them back, with the controllers that Kubernetes itself has for that.
func TestArchive(t *testing.T) {
	t.Parallel()
	plane := controlplane.StartForTest(t, controlplane.Options{ControllerManager: true})
	admin, err := client.New(rest.CopyConfig(plane.Config), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c := &archives{Client: admin, plane: plane}
	c.make(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: installation.SystemNamespace}})
	c.grant(t)
	for name, test := range map[string]func(*testing.T, *archives){
		"there and back":                     testThereAndBack,
		"saving ends between any two writes": testSaveKilled,
		"restoring ends, too":                testRestoreKilled,
		"several reapers at once":            testSaveTogether,
		"values of Secrets":                  testSecretValues,
		"the time is over": func(t *testing.T, c *archives) { // one after another: each lets go of what is kept for minutes
			testRelease(t, c)
			testSlowToGo(t, c)
		},
		"damaged":                           testDamaged,
		"another namespace, another volume": testWrongUID,
		"lists that are cut off":            testLists,
		"marked once more":                  testMarkedAgain,
		"deprovisioned":                     testDeprovisionedComesBack,
		"claims that something controls":    testControlledClaims,
		"claims that come late":             testLateClaim,
		"a volume that cannot be kept":      testVolumeChangedBack,
		"given up before its time":          testDiscard,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, c)
		})
	}
}

// Accounts of reapers: one that keeps values of Secrets, and one that may not even list Secrets in the system's namespace.
const (
	plainReaper   = "reaper"
	secretsReaper = "reaper-of-secrets"
)

// grant gives the reapers' accounts what they need.
func (c *archives) grant(t *testing.T) {
	t.Helper()
	const name = "archive-test"
	read, keep := []string{"get", "list"}, []string{"get", "list", "create", "delete"}
	system := metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: name}
	secrets := metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: name + "-secrets"}
	c.make(t, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get"}},
		{APIGroups: []string{""}, Resources: []string{"persistentvolumes"}, Verbs: []string{"get", "list", "patch"}},
	}}, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: roleNamespace}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Verbs: read, Resources: []string{
			"limitranges", "serviceaccounts", "configmaps", "secrets", "persistentvolumeclaims", "services", "resourcequotas"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
		{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"roles", "rolebindings"}, Verbs: read},
		{APIGroups: []string{"apps"}, Resources: []string{"deployments", "statefulsets", "daemonsets"}, Verbs: read},
		{APIGroups: []string{"batch"}, Resources: []string{"cronjobs", "jobs"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: read},
		{APIGroups: []string{"example.com"}, Resources: []string{"databases"}, Verbs: []string{"list"}},
	}}, &rbacv1.Role{ObjectMeta: system, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: keep}}},
		&rbacv1.Role{ObjectMeta: secrets, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: keep}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, Subjects: reapers(), RoleRef: refer("ClusterRole", name)},
		&rbacv1.RoleBinding{ObjectMeta: system, Subjects: reapers(), RoleRef: refer("Role", name)},
		&rbacv1.RoleBinding{ObjectMeta: secrets, Subjects: reapers()[1:], RoleRef: refer("Role", secrets.Name)})
	c.reaper = c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, plainReaper))
	c.secretsReaper = c.plane.Impersonate(controlplane.ServiceAccount(installation.SystemNamespace, secretsReaper))
}

// roleNamespace is a ClusterRole that every role agent's namespace binds to the reapers.
const roleNamespace = "archive-test-role-namespace"

func reapers() []rbacv1.Subject {
	return []rbacv1.Subject{
		{Kind: "ServiceAccount", Namespace: installation.SystemNamespace, Name: plainReaper},
		{Kind: "ServiceAccount", Namespace: installation.SystemNamespace, Name: secretsReaper},
	}
}

func refer(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func (c *archives) make(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, o := range objects {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatalf("create %T %s: %v", o, o.GetName(), err)
		}
	}
}

// as returns an Archive that acts with a configuration through a transport, if one is given, at a time.
func (c *archives) as(t *testing.T, config *rest.Config, wrap func(http.RoundTripper) http.RoundTripper, now time.Time) *archive.Archive {
	t.Helper()
	config = rest.CopyConfig(config)
	config.QPS = -1
	if wrap != nil {
		config.Wrap(wrap)
	}
	clients, err := archive.ClientsFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return archive.New(archive.Options{
		Clients: clients, Namespace: installation.SystemNamespace, Now: func() time.Time { return now }, PageSize: 2,
		Logger: slog.New(slog.DiscardHandler),
	})
}

var keepFor = archive.Keep{For: 72 * time.Hour}

// role makes a role agent's namespace that is marked, with a claim that is bound.
func (c *archives) role(t *testing.T, name string, more ...client.Object) *corev1.Namespace {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   name,
		Labels: map[string]string{lifecycle.LabelAgentRole: "ceo", lifecycle.LabelOrg: "dexorder", "pod-security.kubernetes.io/enforce": "restricted"},
		Annotations: map[string]string{
			lifecycle.AnnotationReaping: "2026-01-02T03:04:05Z", lifecycle.AnnotationSightings: "2",
			lifecycle.AnnotationLastPodActivity: "2026-01-02T01:04:05Z", "owner": "alice",
		},
	}}
	c.make(t, ns, volumeFor(name, "data"), claimOf(name, "data"), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "reapers"}, Subjects: reapers(), RoleRef: refer("ClusterRole", roleNamespace),
	})
	for _, o := range more {
		o.SetNamespace(name)
		c.make(t, o)
	}
	c.awaitBound(t, name, "data")
	// What controllers put there by themselves, so that nothing changes under the test.
	eventually(t, "default account of "+name, func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "default"}, &corev1.ServiceAccount{})
		return err == nil, err
	})
	return ns
}

func volumeFor(namespace, claim string) *corev1.PersistentVolume {
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: namespace + "-" + claim, Annotations: map[string]string{"example.com/provisioned-by": "nobody"}},
		Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/nonexistent/" + namespace}},
			ClaimRef:               &corev1.ObjectReference{Namespace: namespace, Name: claim}, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimDelete,
		},
	}
}

func claimOf(namespace, name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeName: namespace + "-" + name, StorageClassName: ptr(""),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}},
	}}
}

func (c *archives) volume(t *testing.T, name string) *corev1.PersistentVolume {
	t.Helper()
	pv := &corev1.PersistentVolume{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, pv); err != nil {
		t.Fatal(err)
	}
	return pv
}

func (c *archives) awaitBound(t *testing.T, namespace, claim string) {
	t.Helper()
	pvc := claimOf(namespace, claim)
	eventually(t, "bound claim in "+namespace, func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(pvc), pvc)
		return pvc.Status.Phase == corev1.ClaimBound && c.volume(t, namespace+"-"+claim).Status.Phase == corev1.VolumeBound, err
	})
}

// reap deletes a namespace and waits until it is gone and its volume let go.
func (c *archives) reap(t *testing.T, ns *corev1.Namespace) {
	t.Helper()
	if err := c.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of "+ns.Name, func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(ns), &corev1.Namespace{})
		return apierrors.IsNotFound(err), err
	})
	eventually(t, "released volume of "+ns.Name, func() (bool, error) {
		return c.volume(t, ns.Name+"-data").Status.Phase == corev1.VolumeReleased, nil
	})
}

func (c *archives) save(t *testing.T, ns *corev1.Namespace, keep archive.Keep) {
	t.Helper()
	as := c.reaper
	if keep.Secrets {
		as = c.secretsReaper
	}
	if err := c.as(t, as, nil, time.Now()).Save(t.Context(), ns, keep); err != nil {
		t.Fatal(err)
	}
}

// parts returns the index and the chunks of the archives of a namespace.
func (c *archives) parts(t *testing.T, namespace string) (indexes, chunks []client.Object) {
	t.Helper()
	var maps corev1.ConfigMapList
	var secrets corev1.SecretList
	ours := client.MatchingLabels{lifecycle.LabelArchive: namespace}
	if err := errors.Join(c.List(t.Context(), &maps, client.InNamespace(installation.SystemNamespace), ours),
		c.List(t.Context(), &secrets, client.InNamespace(installation.SystemNamespace), ours)); err != nil {
		t.Fatal(err)
	}
	for i := range maps.Items {
		switch maps.Items[i].Labels[lifecycle.LabelArchivePart] {
		case lifecycle.ArchiveIndex:
			indexes = append(indexes, &maps.Items[i])
		case lifecycle.ArchiveEnd: // see ends
		default:
			chunks = append(chunks, &maps.Items[i])
		}
	}
	for i := range secrets.Items {
		chunks = append(chunks, &secrets.Items[i])
	}
	return indexes, chunks
}

// ends counts what says that a namespace has gone.
func (c *archives) ends(t *testing.T, namespace string) int {
	t.Helper()
	var maps corev1.ConfigMapList
	err := c.List(t.Context(), &maps, client.InNamespace(installation.SystemNamespace),
		client.MatchingLabels{lifecycle.LabelArchive: namespace, lifecycle.LabelArchivePart: lifecycle.ArchiveEnd})
	if err != nil {
		t.Fatal(err)
	}
	return len(maps.Items)
}

// expectOne checks that there is one complete archive of a namespace, and nothing else of it.
func (c *archives) expectOne(t *testing.T, namespace string) {
	t.Helper()
	indexes, chunks := c.parts(t, namespace)
	if len(indexes) != 1 {
		t.Fatalf("%d indexes of %s, want 1", len(indexes), namespace)
	}
	if want := indexes[0].(*corev1.ConfigMap).Data["chunks"]; fmt.Sprint(len(chunks)) != want {
		t.Errorf("%d chunks of %s, want %s", len(chunks), namespace, want)
	}
	pv := c.volume(t, namespace+"-data")
	if pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain || pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "Delete" ||
		pv.Annotations[lifecycle.AnnotationArchiveName] != indexes[0].GetName() {
		t.Errorf("volume of %s is not kept: %s %v", namespace, pv.Spec.PersistentVolumeReclaimPolicy, pv.Annotations)
	}
}

// expectBack checks that a namespace's volume is bound and what it was before.
func (c *archives) expectBack(t *testing.T, namespace string) {
	t.Helper()
	c.awaitBound(t, namespace, "data")
	pv := c.volume(t, namespace+"-data")
	if pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "" ||
		pv.Labels[lifecycle.LabelArchive] != "" || pv.Annotations["example.com/provisioned-by"] != "nobody" {
		t.Errorf("volume of %s is not what it was: %s %v %v", namespace, pv.Spec.PersistentVolumeReclaimPolicy, pv.Labels, pv.Annotations)
	}
}

// everything is one object of each kind that is kept.
func everything() []client.Object {
	meta := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "ceo"}, Annotations: map[string]string{"note": name}}
	}
	labels := map[string]string{"app": "ceo"}
	selector := &metav1.LabelSelector{MatchLabels: labels}
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "agent", Image: "ghcr.io/dexorder/agent:v1"}},
	}}
	once := *template.DeepCopy()
	once.Spec.RestartPolicy = corev1.RestartPolicyNever
	stamped := &corev1.ConfigMap{ObjectMeta: meta("stamped"), BinaryData: map[string][]byte{"b": {0, 255}}}
	stamped.Labels[lifecycle.LabelCreatedByPodUID] = "gone"
	headless := &corev1.Service{ObjectMeta: meta("headless"), Spec: corev1.ServiceSpec{ClusterIP: corev1.ClusterIPNone, Selector: labels,
		Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	service := &corev1.Service{ObjectMeta: meta("ceo"), Spec: corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
	return []client.Object{
		&corev1.LimitRange{ObjectMeta: meta("limits"), Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
			Type: corev1.LimitTypeContainer, Max: corev1.ResourceList{"cpu": resource.MustParse("2")}}}}},
		&networkingv1.NetworkPolicy{ObjectMeta: meta("deny"), Spec: networkingv1.NetworkPolicySpec{PodSelector: *selector,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}}},
		&corev1.ServiceAccount{ObjectMeta: meta("ceo"), AutomountServiceAccountToken: ptr(false)},
		&rbacv1.Role{ObjectMeta: meta("ceo"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get"}}}},
		&rbacv1.RoleBinding{ObjectMeta: meta("ceo"), RoleRef: refer("Role", "ceo"), Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "ceo"}}},
		&corev1.ConfigMap{ObjectMeta: meta("settings"), Data: map[string]string{"a": "1"}}, stamped,
		&corev1.Secret{ObjectMeta: meta("keys"), Data: map[string][]byte{"token": []byte("hunter2"), "other": []byte("hunter3")}},
		service, headless,
		&appsv1.Deployment{ObjectMeta: meta("stopped"), Spec: appsv1.DeploymentSpec{Replicas: ptr[int32](0), Selector: selector, Template: template}},
		&appsv1.StatefulSet{ObjectMeta: meta("stopped"), Spec: appsv1.StatefulSetSpec{Replicas: ptr[int32](0), Selector: selector, Template: template, ServiceName: "headless"}},
		&appsv1.DaemonSet{ObjectMeta: meta("everywhere"), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}},
		&batchv1.CronJob{ObjectMeta: meta("nightly"), Spec: batchv1.CronJobSpec{Schedule: "0 3 * * *", Suspend: ptr(true),
			JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: once}}}},
		&batchv1.Job{ObjectMeta: meta("later"), Spec: batchv1.JobSpec{Suspend: ptr(true), Template: once}},
		&corev1.ResourceQuota{ObjectMeta: meta("quota"), Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"pods": resource.MustParse("5")}}},
	}
}

// written is what of an object somebody wrote.
func (c *archives) written(t *testing.T, namespace string) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, k := range archive.Kinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(k.GroupVersionKind)
		if err := c.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			o := &list.Items[i]
			if o.GetName() == "default" || o.GetName() == "kube-root-ca.crt" {
				continue
			}
			labels, annotations := o.GetLabels(), o.GetAnnotations()
			delete(labels, lifecycle.LabelCreatedByPodUID)
			for _, of := range []string{"pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller", "deployment.kubernetes.io/revision"} {
				delete(annotations, of)
			}
			spec, _ := o.Object["spec"].(map[string]any)
			if o.GetKind() == "Service" && spec["clusterIP"] != "None" {
				delete(spec, "clusterIP")
				delete(spec, "clusterIPs")
			}
			if o.GetKind() == "Job" {
				delete(spec, "selector")
				unstructured.RemoveNestedField(spec, "template", "metadata")
			}
			all[o.GetKind()+" "+o.GetName()] = map[string]any{"labels": labels, "annotations": annotations, "spec": spec,
				"data": o.Object["data"], "binaryData": o.Object["binaryData"], "rules": o.Object["rules"], "roleRef": o.Object["roleRef"],
				"subjects": o.Object["subjects"], "automountServiceAccountToken": o.Object["automountServiceAccountToken"]}
		}
	}
	return all
}

func testThereAndBack(t *testing.T, c *archives) {
	const name = "agent-ceo"
	ns := c.role(t, name, everything()...)
	before := c.written(t, name)
	if len(before) < len(archive.Kinds) {
		t.Fatalf("%d objects for %d kinds", len(before), len(archive.Kinds))
	}
	c.save(t, ns, keepFor)
	c.expectOne(t, name)

	plugin := filepath.Join(t.TempDir(), "kubectl-agents")
	if out, err := exec.Command("go", "build", "-o", plugin, "../cmd/kubectl-agents").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(wantCode int, args ...string) string {
		t.Helper()
		cmd := exec.Command(plugin, append([]string{"restore", "--kubeconfig", c.plane.Kubeconfig()}, args...)...)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != wantCode {
			t.Fatalf("restore %v: exit code %d, want %d\n%s", args, code, wantCode, out)
		}
		t.Logf("$ kubectl agents restore %s\n%s", strings.Join(args, " "), out)
		return string(out)
	}
	if out := run(0); !strings.Contains(out, name) {
		t.Errorf("the list lacks %s:\n%s", name, out)
	}
	c.make(t, held(name))
	if err := c.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	if out := run(1, name); !strings.Contains(out, "namespace agent-ceo is still being deleted") {
		t.Errorf("got:\n%s", out)
	}
	// Once the archive is complete it stands, whatever is left of the namespace.
	c.save(t, ns, keepFor)
	c.letGo(t, name)
	eventually(t, "end of "+name, func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(ns), &corev1.Namespace{})
		return apierrors.IsNotFound(err), err
	})
	if out := run(1, name, "--dry-run"); !strings.Contains(out, "would be created") || strings.Contains(out, "failed") {
		t.Errorf("got:\n%s", out)
	}
	if out := run(1, name); !strings.Contains(out, "keys") || !strings.Contains(out, "other, token") || strings.Contains(out, "failed") {
		t.Errorf("got:\n%s", out)
	}
	c.expectBack(t, name)
	live := &corev1.Namespace{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, live); err != nil {
		t.Fatal(err)
	}
	activity, err := time.Parse(time.RFC3339, live.Annotations[lifecycle.AnnotationLastPodActivity])
	if live.Annotations[lifecycle.AnnotationReaping] != "" || live.Annotations[lifecycle.AnnotationSightings] != "" || live.Annotations["owner"] != "alice" ||
		live.Labels[lifecycle.LabelOrg] != "dexorder" || err != nil || time.Since(activity) > time.Minute {
		t.Errorf("the namespace came back as %v %v", live.Labels, live.Annotations)
	}
	secret := everything()[7]
	secret.SetNamespace(name)
	c.make(t, secret)
	if out := run(0, name); strings.Contains(out, "created") {
		t.Errorf("a second run made something:\n%s", out)
	}
	if diff := cmp.Diff(before, c.written(t, name)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

// held is an object that keeps its namespace from going, until letGo.
func held(namespace string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "held", Finalizers: []string{"example.com/hold"}}}
}

func (c *archives) letGo(t *testing.T, namespace string) {
	t.Helper()
	if err := c.Patch(t.Context(), held(namespace), client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
}

// big are ConfigMaps that do not compress into one chunk.
func big(t *testing.T) []client.Object {
	t.Helper()
	var all []client.Object
	for i := range 2 {
		data := make([]byte, 600<<10)
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		all = append(all, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("big-%d", i)},
			Data: map[string]string{"data": base64.StdEncoding.EncodeToString(data)}})
	}
	return all
}

var errKilled = errors.New("killed")

// killedAfter lets so many writes through and then nothing at all, as if the process were gone.
type killedAfter struct {
	http.RoundTripper
	writes *atomic.Int32
}

func (k killedAfter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet && k.writes.Add(-1) < 0 || k.writes.Load() < 0 {
		return nil, errKilled
	}
	return k.RoundTripper.RoundTrip(r)
}

func after(writes int) func(http.RoundTripper) http.RoundTripper {
	left := &atomic.Int32{}
	left.Store(int32(writes))
	return func(rt http.RoundTripper) http.RoundTripper { return killedAfter{rt, left} }
}

func testSaveKilled(t *testing.T, c *archives) {
	for writes := 0; ; writes++ {
		name := fmt.Sprintf("agent-killed-%d", writes)
		ns := c.role(t, name, big(t)...)
		err := c.as(t, c.reaper, after(writes), time.Now()).Save(t.Context(), ns, keepFor)
		if err == nil {
			if writes < 4 {
				t.Errorf("saved with %d writes; want a volume, two chunks and an index at least", writes)
			}
			return
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
		if indexes, _ := c.parts(t, name); len(indexes) > 0 {
			t.Errorf("after %d writes, and an error, there is an index", writes)
		}
		// The next one may see something else.
		if writes%2 == 1 {
			c.make(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "another"}})
		}
		c.save(t, ns, keepFor)
		c.expectOne(t, name)
	}
}

func testRestoreKilled(t *testing.T, c *archives) {
	const name = "agent-torn"
	ns := c.role(t, name, everything()...)
	before := c.written(t, name)
	c.save(t, ns, archive.Keep{For: time.Hour, Secrets: true})
	c.reap(t, ns)
	runs := 0
	for ; ; runs++ {
		// One write more each time, so that it ends between each and the next.
		restored, err := c.as(t, c.plane.Config, after(1), time.Now()).Restore(t.Context(), name, archive.RestoreOptions{})
		if err == nil {
			if !restored.Complete() {
				t.Fatalf("%+v", restored.Results)
			}
			break
		}
		if !errors.Is(err, errKilled) || runs > 100 {
			t.Fatal(err)
		}
	}
	t.Logf("back after %d runs that were killed", runs)
	c.expectBack(t, name)
	if diff := cmp.Diff(before, c.written(t, name)); diff != "" {
		t.Errorf("-before +after\n%s", diff)
	}
}

func testSaveTogether(t *testing.T, c *archives) {
	const name = "agent-twice"
	ns := c.role(t, name, big(t)...)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			// Their policies may differ, too.
			if err := c.as(t, c.secretsReaper, nil, time.Now()).Save(t.Context(), ns, archive.Keep{For: time.Hour, Secrets: i%2 == 0}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// Whose turn it is to clear away what those left that were slower.
	c.save(t, ns, archive.Keep{For: time.Hour, Secrets: true})
	c.expectOne(t, name)
	if _, err := c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{DryRun: true}); err != nil {
		t.Error(err)
	}
}

func testSecretValues(t *testing.T, c *archives) {
	const name = "agent-secretive"
	ns := c.role(t, name, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys"}, Data: map[string][]byte{"token": []byte("hunter2")}})
	c.save(t, ns, archive.Keep{For: time.Hour, Secrets: true})
	_, chunks := c.parts(t, name)
	for _, o := range chunks {
		if s, is := o.(*corev1.Secret); !is || s.Type != lifecycle.SecretTypeArchive {
			t.Errorf("chunk %s is not a Secret of our type: %T", o.GetName(), o)
		}
	}
	c.reap(t, ns)
	restored, err := c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{})
	if err != nil || !restored.Complete() {
		t.Fatalf("%+v, %v", restored, err)
	}
	s := &corev1.Secret{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: name, Name: "keys"}, s); err != nil || string(s.Data["token"]) != "hunter2" {
		t.Errorf("the Secret came back with %q, %v", s.Data, err)
	}
}

func testRelease(t *testing.T, c *archives) {
	const name = "agent-over"
	start := time.Now()
	ns := c.role(t, name)
	foreign := volumeFor("not-agents", "data")
	foreign.Labels = map[string]string{lifecycle.LabelArchive: "not-agents"}
	foreign.Annotations = map[string]string{lifecycle.AnnotationArchiveName: "archive-x", lifecycle.AnnotationReclaimPolicy: "Delete",
		lifecycle.AnnotationRetainedUntil: "2026-01-01T00:00:00Z"}
	foreign.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	foreign.Spec.ClaimRef.UID = "gone"
	c.make(t, foreign)
	eventually(t, "released foreign volume", func() (bool, error) {
		return c.volume(t, foreign.Name).Status.Phase == corev1.VolumeReleased, nil
	})
	// One attempt that never became an archive leaves chunks.
	if err := c.as(t, c.reaper, after(2), start).Save(t.Context(), ns, archive.Keep{For: time.Minute}); !errors.Is(err, errKilled) {
		t.Fatal(err)
	}
	if indexes, chunks := c.parts(t, name); len(indexes) != 0 || len(chunks) != 1 {
		t.Fatalf("%d indexes, %d chunks; want 0, 1", len(indexes), len(chunks))
	}
	at := func(after time.Duration) *archive.Archive { return c.as(t, c.reaper, nil, start.Add(after)) }
	if err := at(30 * time.Second).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, chunks := c.parts(t, name); len(chunks) != 1 {
		t.Fatal("a chunk went before its time")
	}
	if err := at(2 * time.Minute).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, chunks := c.parts(t, name); len(chunks) != 0 {
		t.Fatal("a chunk of no archive stayed after its time")
	}
	if pv := c.volume(t, name+"-data"); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Error("a volume that is bound was let go")
	}

	// It is longer than what other tests keep, so that their archives are none of its business: they share a cluster.
	c.save(t, ns, archive.Keep{For: 10 * time.Minute})
	c.expectOne(t, name)
	c.reap(t, ns)
	if err := at(5 * time.Minute).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.expectOne(t, name)
	if err := at(14 * time.Minute).Release(t.Context()); err != nil { // it was found to have gone nine minutes ago
		t.Fatal(err)
	}
	c.expectOne(t, name)
	if list, err := at(0).List(t.Context()); err != nil || !slices.ContainsFunc(list, func(i archive.Info) bool {
		return i.Namespace == name && i.KeptUntil.Equal(start.Add(15*time.Minute).Truncate(time.Second))
	}) {
		t.Errorf("the list does not say until when it is kept: %+v, %v", list, err)
	}
	if err := at(16 * time.Minute).Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if indexes, chunks := c.parts(t, name); len(indexes)+len(chunks)+c.ends(t, name) != 0 {
		t.Errorf("%d indexes, %d chunks and %d ends stayed after their time", len(indexes), len(chunks), c.ends(t, name))
	}
	pv := &corev1.PersistentVolume{}
	err := c.Get(t.Context(), client.ObjectKey{Name: name + "-data"}, pv)
	if err == nil && (pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || pv.Annotations[lifecycle.AnnotationReclaimPolicy] != "") {
		t.Errorf("the volume was not let go: %s %v", pv.Spec.PersistentVolumeReclaimPolicy, pv.Annotations)
	}
	if pv := c.volume(t, foreign.Name); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
		t.Error("a volume of somebody else was let go")
	}
}

// However long a namespace takes to go, its archive waits for it: before it is marked, while it is taken apart, and while the API server
// deletes it. One that was let live again is not waited for.
func testSlowToGo(t *testing.T, c *archives) {
	const name, lives = "agent-slow", "agent-lives-on"
	start := time.Now()
	held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"e2e.lifecycle.dexorder.io/hold"}}}
	ns, other := c.role(t, name, held), c.role(t, lives)
	c.save(t, ns, archive.Keep{For: 10 * time.Minute})
	c.save(t, other, archive.Keep{For: 10 * time.Minute})
	delete(other.Annotations, lifecycle.AnnotationReaping)
	if err := c.Update(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	at := func(after time.Duration) {
		t.Helper()
		if err := c.as(t, c.reaper, nil, start.Add(after)).Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	at(20 * time.Minute) // less than an hour in all, for which other tests keep theirs
	c.expectOne(t, name) // its claims do not go, say
	if indexes, chunks := c.parts(t, lives); len(indexes)+len(chunks) != 0 {
		t.Errorf("%d indexes and %d chunks of a namespace that lives on stayed after their time", len(indexes), len(chunks))
	}
	if err := c.Delete(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	eventually(t, "released volume", func() (bool, error) { return c.volume(t, name+"-data").Status.Phase == corev1.VolumeReleased, nil })
	at(30 * time.Minute)
	c.expectOne(t, name) // which looks at the volume, too
	if n := c.ends(t, name); n != 0 {
		t.Errorf("%d ends of a namespace that is there", n)
	}
	if err := c.Patch(t.Context(), held, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the namespace", func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(ns), &corev1.Namespace{})
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	at(40 * time.Minute)
	at(49 * time.Minute)
	c.expectOne(t, name)
	at(51 * time.Minute)
	if indexes, chunks := c.parts(t, name); len(indexes)+len(chunks)+c.ends(t, name) != 0 {
		t.Errorf("%d indexes, %d chunks and %d ends stayed after their time", len(indexes), len(chunks), c.ends(t, name))
	}
}

func testDamaged(t *testing.T, c *archives) {
	const name = "agent-damaged"
	ns := c.role(t, name)
	c.save(t, ns, keepFor)
	_, chunks := c.parts(t, name)
	whole := chunks[0].(*corev1.ConfigMap)
	refused := func(why string) {
		t.Helper()
		_, err := c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{})
		if !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), why) {
			t.Errorf("restore: got %v, want a refusal that says %q", err, why)
		}
		if err := c.as(t, c.reaper, nil, time.Now()).Save(t.Context(), ns, keepFor); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("save: got %v, want an error that says %q", err, why)
		}
	}
	if err := c.Delete(t.Context(), whole); err != nil {
		t.Fatal(err)
	}
	refused("is missing")
	damaged := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: whole.Namespace, Name: whole.Name, Labels: whole.Labels, Annotations: whole.Annotations}}
	damaged.BinaryData = map[string][]byte{"chunk": bytes.Clone(whole.BinaryData["chunk"])}
	damaged.BinaryData["chunk"][20] ^= 1
	c.make(t, damaged)
	refused("SHA-256")
}

func testWrongUID(t *testing.T, c *archives) {
	const name = "agent-namesake"
	ns := c.role(t, name)
	other := ns.DeepCopy()
	other.UID = "somebody-else"
	if err := c.as(t, c.reaper, nil, time.Now()).Save(t.Context(), other, keepFor); err == nil || !strings.Contains(err.Error(), "another one by now") {
		t.Errorf("save: got %v", err)
	}
	c.save(t, ns, keepFor)
	c.reap(t, ns)
	namesake := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	c.make(t, namesake)
	restore := func() (*archive.Restored, error) {
		return c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{})
	}
	if _, err := restore(); !errors.Is(err, archive.ErrRefused) || !strings.Contains(err.Error(), "remove it first") {
		t.Errorf("restore over a namesake: got %v", err)
	}
	if err := c.Delete(t.Context(), namesake); err != nil {
		t.Fatal(err)
	}
	// A volume that only has the name of the one that was kept.
	pv := c.volume(t, name+"-data")
	if err := c.Delete(t.Context(), pv); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the namesake and the volume", func() (bool, error) {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(namesake), &corev1.Namespace{})
		gone := c.Get(t.Context(), client.ObjectKeyFromObject(pv), &corev1.PersistentVolume{})
		return apierrors.IsNotFound(err) && apierrors.IsNotFound(gone), err
	})
	c.make(t, volumeFor(name, "data"))
	restored, err := restore()
	if err != nil || restored.Complete() {
		t.Fatalf("%+v, %v", restored, err)
	}
	for _, kind := range []string{"PersistentVolume", "PersistentVolumeClaim"} {
		found := false
		for _, r := range restored.Results {
			found = found || r.Kind == kind && r.Outcome == archive.Failed && strings.Contains(r.Detail, "the volume is gone")
		}
		if !found {
			t.Errorf("no failed %s in %+v", kind, restored.Results)
		}
	}
}

// fault answers in the API server's place, or spoils what it answers, where it says so.
type fault func(*http.Request, http.RoundTripper) (*http.Response, error)

type faulty struct {
	http.RoundTripper
	fault fault
}

func (f faulty) RoundTrip(r *http.Request) (*http.Response, error) { return f.fault(r, f.RoundTripper) }

func (f fault) wrap(rt http.RoundTripper) http.RoundTripper { return faulty{rt, f} }

func testLists(t *testing.T, c *archives) {
	var maps []client.Object
	for i := range 7 {
		maps = append(maps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("m%d", i)}})
	}
	later := func(r *http.Request) bool {
		return strings.HasSuffix(r.URL.Path, "/configmaps") && r.URL.Query().Get("continue") != ""
	}
	t.Run("mid-page", func(t *testing.T) {
		const name = "agent-cut"
		ns := c.role(t, name, maps...)
		cut := fault(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			response, err := rt.RoundTrip(r)
			if err == nil && later(r) {
				response.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(response.Body, 100), response.Body}
			}
			return response, err
		})
		if err := c.as(t, c.reaper, cut.wrap, time.Now()).Save(t.Context(), ns, keepFor); err == nil || !strings.Contains(err.Error(), "list configmaps") {
			t.Errorf("got %v", err)
		}
		if indexes, _ := c.parts(t, name); len(indexes) != 0 {
			t.Error("there is an index of what was not read to its end")
		}
	})
	t.Run("expired", func(t *testing.T) {
		const name = "agent-expired"
		for _, m := range maps {
			m.SetResourceVersion("")
		}
		ns := c.role(t, name, maps...)
		var expired atomic.Int32
		gone := fault(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			// On the third page, so that the two before it are read again.
			if later(r) && expired.Add(1) == 2 {
				body := `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410}`
				return &http.Response{StatusCode: http.StatusGone, Header: http.Header{"Content-Type": {"application/json"}},
					Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
			}
			return rt.RoundTrip(r)
		})
		if err := c.as(t, c.reaper, gone.wrap, time.Now()).Save(t.Context(), ns, keepFor); err != nil {
			t.Fatal(err)
		}
		indexes, _ := c.parts(t, name)
		// Namespace, claim, RoleBinding and ConfigMaps, each once.
		if objects := indexes[0].(*corev1.ConfigMap).Data["objects"]; objects != "10" {
			t.Errorf("%s objects, want 10", objects)
		}
	})
	t.Run("failed", func(t *testing.T) {
		const name = "agent-failed"
		ns := c.role(t, name)
		failing := fault(func(r *http.Request, rt http.RoundTripper) (*http.Response, error) {
			if strings.HasSuffix(r.URL.Path, "/roles") {
				return nil, context.DeadlineExceeded
			}
			return rt.RoundTrip(r)
		})
		if err := c.as(t, c.reaper, failing.wrap, time.Now()).Save(t.Context(), ns, keepFor); err == nil || !strings.Contains(err.Error(), "list roles") {
			t.Errorf("got %v", err)
		}
	})
}

// A namespace that was let live and is marked again has changed in between, and the newer archive is the one that is meant.
func testMarkedAgain(t *testing.T, c *archives) {
	const name = "agent-again"
	ns := c.role(t, name)
	start := time.Now()
	c.save(t, ns, keepFor)
	patch := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"annotations":{"`+lifecycle.AnnotationReaping+`":"2026-01-03T00:00:00Z"}}}`))
	if err := c.Patch(t.Context(), ns, patch); err != nil {
		t.Fatal(err)
	}
	c.make(t, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "newer"}})
	if err := c.as(t, c.reaper, nil, start.Add(time.Minute)).Save(t.Context(), ns, keepFor); err != nil {
		t.Fatal(err)
	}
	// The archived one itself, which somebody saved at the last moment: only the marks go.
	restored, err := c.as(t, c.plane.Config, nil, time.Now()).Restore(t.Context(), name, archive.RestoreOptions{})
	if err != nil || !restored.Complete() || restored.Archive.Objects != 4 {
		t.Fatalf("%+v, %v", restored, err)
	}
	live := &corev1.Namespace{}
	if err := c.Get(t.Context(), client.ObjectKey{Name: name}, live); err != nil || live.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Errorf("%v, %v", live.Annotations, err)
	}
	c.expectBack(t, name)
}
