package manifests

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// The labels and annotations by which archives and the volumes that they keep are known.
const (
	archiveLabel      = lifecycle.Prefix + "archive"
	archiveSecretType = lifecycle.Prefix + "archive"
	reclaimAnnotation = lifecycle.Prefix + "reclaim-policy"
)

func bindReaper(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-reaper"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "lifecycle-reaper-role-namespace"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: "lifecycle-reaper", Namespace: "dexorder-system"}},
	}
	if _, err := client.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// testReaperWrites does what the reaper does, and what it must never do, with the rights of the reaper's own account; what those
// do not allow anyway, the policy refuses to the server's account with every right. All in dry runs.
func testReaperWrites(t *testing.T, cp *controlplane.ControlPlane) {
	admin := kubernetes.NewForConfigOrDie(cp.Config)
	reaper := kubernetes.NewForConfigOrDie(cp.Impersonate(controlplane.ServiceAccount("dexorder-system", "lifecycle-reaper")))
	server := impersonate(cp, controlplane.ServiceAccount("dexorder-system", "lifecycle-webhook"))
	eventually(t, "the reaper has no rights", func(ctx context.Context) bool {
		_, err := reaper.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		return err == nil
	})

	t.Run("namespaces", func(t *testing.T) {
		prepareNamespaces(t, admin)
		tryAll(t, reaper, namespaceWrites())
		tryAll(t, reaper, namespaceDeletions())
		tryAll(t, server, []attempt{
			{"creation", func(ctx context.Context, c kubernetes.Interface) error {
				_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "agent-new"}}, dryRunCreate)
				return err
			}, "the reaper creates neither namespaces nor volumes"},
			{"label by the server", writeNamespace("agent-idle", `{"metadata": {"labels": {"org": "other"}}}`), "and nothing else"},
			{"deletion of an unmarked one by the server", deleteNamespace("agent-idle"), "the reaper deletes only what it has marked"},
		})
		tryAll(t, admin, []attempt{
			{"label by a person", writeNamespace("agent-idle", `{"metadata": {"labels": {"org": "other"}}}`), ""},
			{"deletion by a person", deleteNamespace("agent-idle"), ""},
		})
	})
	t.Run("volumes", func(t *testing.T) {
		prepareVolumes(t, admin)
		tryAll(t, reaper, volumeWrites())
		tryAll(t, server, []attempt{{"deletion", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().PersistentVolumes().Delete(ctx, "deleted", dryRunDelete)
		}, "the reaper creates neither namespaces nor volumes, and deletes no volumes"}})
	})
	t.Run("role namespaces", func(t *testing.T) {
		prepareRoleNamespaces(t, admin)
		tryAll(t, reaper, roleNamespaceDeletions())
		tryAll(t, server, []attempt{{"all at once", func(ctx context.Context, c kubernetes.Interface) error {
			return c.AppsV1().Deployments("agent-going").DeleteCollection(ctx, dryRunDelete, metav1.ListOptions{})
		}, "the reaper deletes objects by name, never as a collection"}})
		tryAll(t, admin, []attempt{{"by a person", deleteObject("deployments", "agent-staying", "plain"), ""}})
	})
	t.Run("archives", func(t *testing.T) {
		tryAll(t, reaper, archiveWrites())
		ca := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-webhook-ca"}, Type: corev1.SecretTypeTLS,
			Data: map[string][]byte{"tls.crt": nil, "tls.key": nil}}
		tryAll(t, server, []attempt{{"the server's CA", createSecret(ca), ""}})
		keys := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-keys"}, Type: corev1.SecretTypeOpaque}
		token := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-keys", Annotations: map[string]string{
			corev1.ServiceAccountNameKey: "gateway",
		}}, Type: corev1.SecretTypeServiceAccountToken}
		tryAll(t, server, []attempt{
			{"the installation's keys", createSecret(keys), ""},
			{"a token by their name", createSecret(token), "the reaper creates and deletes archives here"},
		})
	})
}

var dryRunDelete = metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}

func prepareNamespaces(t *testing.T, admin kubernetes.Interface) {
	t.Helper()
	reaping, keep, until := lifecycle.AnnotationReaping, lifecycle.AnnotationDoNotReap, lifecycle.AnnotationDoNotReapUntil
	for name, annotations := range map[string]map[string]string{
		"agent-idle":           {keep: "false", lifecycle.AnnotationLastPodActivity: earlier},
		"agent-marked":         {reaping: markedAt},
		"agent-marked-badly":   {reaping: "yes"},
		"agent-kept":           {reaping: markedAt, keep: "true"},
		"agent-kept-emptily":   {reaping: markedAt, keep: ""},
		"agent-not-kept":       {reaping: markedAt, keep: "false"},
		"agent-kept-longer":    {reaping: markedAt, until: later},
		"agent-no-longer-kept": {reaping: markedAt, until: earlier},
		"agent-kept-for-ever":  {reaping: markedAt, until: "when it is done"},
		"agent-kept-till-32nd": {reaping: markedAt, until: "2026-10-32T00:00:00Z"},
		"lookalike":            {reaping: markedAt},
	} {
		createRoleNamespace(t, admin, name, annotations)
	}
	createRoleNamespace(t, admin, "agent-kept-by-label", map[string]string{reaping: markedAt}, keep, "true")
	createRoleNamespace(t, admin, "agent-not-kept-by-label", map[string]string{reaping: markedAt}, keep, "false")
	createRoleNamespace(t, admin, "agent-kept-by-day", map[string]string{reaping: markedAt}, until, "2020-01-01")
	unlabelled := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "agent-unlabelled", Annotations: map[string]string{lifecycle.AnnotationReaping: markedAt},
	}}
	if _, err := admin.CoreV1().Namespaces().Create(t.Context(), unlabelled, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func patchNamespace(ctx context.Context, c kubernetes.Interface, name, patch string, options metav1.PatchOptions) error {
	_, err := c.CoreV1().Namespaces().Patch(ctx, name, types.MergePatchType, []byte(patch), options)
	return err
}

// writeNamespace patches one in a dry run.
func writeNamespace(name, patch string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		return patchNamespace(ctx, c, name, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	}
}

func annotation(key, value string) string {
	if value == "" {
		return fmt.Sprintf(`{"metadata": {"annotations": {%q: null}}}`, key)
	}
	return fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, key, value)
}

func namespaceWrites() []attempt {
	const own = "of a namespace the reaper writes the annotations last-pod-activity and lifecycle.dexorder.io/* and nothing else"
	const foreign = "the reaper touches no namespace but those of role agents"
	write := func(name, namespace, patch, refusal string) attempt {
		return attempt{name, writeNamespace(namespace, patch), refusal}
	}
	return []attempt{
		write("last activity", "agent-idle", annotation(lifecycle.AnnotationLastPodActivity, later), ""),
		write("last activity where none was", "agent-marked", annotation(lifecycle.AnnotationLastPodActivity, later), ""),
		write("sightings", "agent-idle", annotation(lifecycle.AnnotationSightings, "1"), ""),
		write("mark", "agent-idle", annotation(lifecycle.AnnotationReaping, markedAt), ""),
		write("mark taken back", "agent-marked", annotation(lifecycle.AnnotationReaping, ""), ""),
		write("protection", "agent-idle", annotation(lifecycle.AnnotationDoNotReap, "true"), own),
		write("protection taken off", "agent-kept", annotation(lifecycle.AnnotationDoNotReap, ""), own),
		write("protection ended", "agent-kept-longer", annotation(lifecycle.AnnotationDoNotReapUntil, earlier), own),
		write("somebody else's annotation", "agent-idle", annotation("example.com/owner", "us"), own),
		write("label", "agent-idle", `{"metadata": {"labels": {"org": "other"}}}`, own),
		write("label of ours", "agent-idle", `{"metadata": {"labels": {"lifecycle.dexorder.io/x": "y"}}}`, own),
		write("label taken off", "agent-idle", `{"metadata": {"labels": {"org": null}}}`, own),
		write("finalizer", "agent-idle", `{"metadata": {"finalizers": ["example.com/one"]}}`, own),
		write("owner", "agent-idle", `{"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]}}`, own),
		write("namespace of another name", "lookalike", annotation(lifecycle.AnnotationLastPodActivity, later),
			`the reaper touches no namespace but those of role agents: "lookalike" does not start with "agent-" or has no label agent-role`),
		write("namespace without the label", "agent-unlabelled", annotation(lifecycle.AnnotationLastPodActivity, later), foreign),
		write("label that makes a namespace ours", "agent-unlabelled", `{"metadata": {"labels": {"agent-role": "x"}}}`, foreign),
		write("user agents' namespace", "dexorder-agents", annotation(lifecycle.AnnotationLastPodActivity, later), foreign),
		write("own namespace", "dexorder-system", annotation(lifecycle.AnnotationLastPodActivity, later), foreign),
		write("cluster's namespace", "kube-system", annotation(lifecycle.AnnotationLastPodActivity, later), foreign),
		write("default namespace", "default", annotation(lifecycle.AnnotationLastPodActivity, later), foreign),
	}
}

// deleteNamespace deletes one as it is found.
func deleteNamespace(name string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		n, err := c.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		options := dryRunDelete
		options.Preconditions = &metav1.Preconditions{UID: &n.UID, ResourceVersion: &n.ResourceVersion}
		return c.CoreV1().Namespaces().Delete(ctx, name, options)
	}
}

func namespaceDeletions() []attempt {
	deletion := func(name, namespace, refusal string) attempt {
		return attempt{name, deleteNamespace(namespace), refusal}
	}
	return []attempt{
		deletion("deletion of a marked one", "agent-marked", ""),
		deletion("deletion of one that is not protected", "agent-not-kept", ""),
		deletion("deletion of one that was protected until the mark", "agent-no-longer-kept", ""),
		deletion("deletion of an unmarked one", "agent-idle", `the reaper deletes only what it has marked: namespace "agent-idle"`+
			` has no annotation lifecycle.dexorder.io/reaping with a time`),
		deletion("deletion of one with a strange mark", "agent-marked-badly", "the reaper deletes only what it has marked"),
		deletion("deletion of a protected one", "agent-kept", `namespace "agent-kept" is protected`),
		deletion("deletion of one protected by an empty value", "agent-kept-emptily", "is protected"),
		deletion("deletion of one protected by a label", "agent-kept-by-label", "is protected"),
		deletion("deletion of one not protected by a label", "agent-not-kept-by-label", ""),
		deletion("deletion of one protected until a day by a label", "agent-kept-by-day", "is protected"),
		deletion("deletion of one protected for longer", "agent-kept-longer", "is protected"),
		deletion("deletion of one protected for ever", "agent-kept-for-ever", "is protected"),
		deletion("deletion of one protected until no day", "agent-kept-till-32nd", "agent-reaper-writes"),
		deletion("deletion of one of another name", "lookalike", "the reaper touches no namespace but those of role agents"),
		deletion("deletion of one without the label", "agent-unlabelled", "the reaper touches no namespace but those of role agents"),
		{"deletion without preconditions", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().Namespaces().Delete(ctx, "agent-marked", dryRunDelete)
		}, "the reaper deletes a namespace only as it saw it"},
		{"deletion with a UID alone", func(ctx context.Context, c kubernetes.Interface) error {
			n, err := c.CoreV1().Namespaces().Get(ctx, "agent-marked", metav1.GetOptions{})
			if err != nil {
				return err
			}
			options := dryRunDelete
			options.Preconditions = metav1.NewUIDPreconditions(string(n.UID))
			return c.CoreV1().Namespaces().Delete(ctx, "agent-marked", options)
		}, "the reaper deletes a namespace only as it saw it"},
	}
}

func prepareVolumes(t *testing.T, admin kubernetes.Interface) {
	t.Helper()
	reclaim := corev1.PersistentVolumeReclaimDelete
	for _, v := range []struct {
		name, namespace string
		policy          corev1.PersistentVolumeReclaimPolicy
		annotations     map[string]string
	}{
		{"deleted", "agent-ceo", reclaim, nil},
		{"kept", "agent-ceo", corev1.PersistentVolumeReclaimRetain, map[string]string{reclaimAnnotation: "Delete"}},
		{"kept-by-others", "agent-ceo", corev1.PersistentVolumeReclaimRetain, nil},
		{"users", "dexorder-agents", reclaim, nil},
		{"unclaimed", "", reclaim, nil},
	} {
		pv := &corev1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: v.name, Annotations: v.annotations},
			Spec: corev1.PersistentVolumeSpec{
				AccessModes:                   []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Capacity:                      corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")},
				PersistentVolumeReclaimPolicy: v.policy,
				PersistentVolumeSource: corev1.PersistentVolumeSource{
					CSI: &corev1.CSIPersistentVolumeSource{Driver: "csi.example.com", VolumeHandle: v.name},
				},
			},
		}
		if v.namespace != "" {
			pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: v.namespace, Name: "data", UID: "some"}
		}
		if _, err := admin.CoreV1().PersistentVolumes().Create(t.Context(), pv, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

func volumeWrites() []attempt {
	const own = "of a volume the reaper writes persistentVolumeReclaimPolicy and labels and annotations lifecycle.dexorder.io/*"
	const foreign = "the reaper touches no volume but those of role agents"
	const back = "the reaper gives a volume the reclaim policy Retain, or the one that annotation lifecycle.dexorder.io/reclaim-policy says it had"
	const retain = `{"metadata": {"labels": {"lifecycle.dexorder.io/archive": "agent-ceo"},` +
		` "annotations": {"lifecycle.dexorder.io/reclaim-policy": "Delete"}}, "spec": {"persistentVolumeReclaimPolicy": "Retain"}}`
	const release = `{"metadata": {"annotations": {"lifecycle.dexorder.io/reclaim-policy": null}}, "spec": {"persistentVolumeReclaimPolicy": "Delete"}}`
	write := func(name, volume, patch, refusal string) attempt {
		return attempt{name, func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().PersistentVolumes().Patch(ctx, volume, types.MergePatchType, []byte(patch),
				metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}, refusal}
	}
	return []attempt{
		write("keep", "deleted", retain, ""),
		write("let go", "kept", release, ""),
		write("let go of what others keep", "kept-by-others", release, back),
		write("let go otherwise than it was", "kept", `{"spec": {"persistentVolumeReclaimPolicy": "Recycle"}}`, back),
		write("claim it lay under", "deleted", `{"spec": {"claimRef": null}}`, own),
		write("capacity", "deleted", `{"spec": {"capacity": {"storage": "2Gi"}}}`, own),
		write("class that was not there", "deleted", `{"spec": {"storageClassName": "fast"}}`, own),
		write("somebody else's annotation", "deleted", annotation("example.com/owner", "us"), own),
		write("somebody else's label", "deleted", `{"metadata": {"labels": {"team": "blue"}}}`, own),
		write("finalizer", "deleted", `{"metadata": {"finalizers": null}}`, own),
		write("volume of a user agent", "users", retain, `"users" is claimed from namespace "dexorder-agents"`),
		write("volume of nobody", "unclaimed", retain, foreign),
		{"deletion without the right to", func(ctx context.Context, c kubernetes.Interface) error {
			return c.CoreV1().PersistentVolumes().Delete(ctx, "deleted", dryRunDelete)
		}, `cannot delete resource "persistentvolumes"`},
	}
}
