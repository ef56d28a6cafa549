package manifests

import (
	"context"
	"errors"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// prepareRoleNamespaces creates those in which the reaper deletes.
func prepareRoleNamespaces(t *testing.T, admin kubernetes.Interface) {
	t.Helper()
	createRoleNamespace(t, admin, "agent-staying", nil)
	createRoleNamespace(t, admin, "agent-going", nil)
	createRoleNamespace(t, admin, "agent-doubted", nil)
	createRoleNamespace(t, admin, "agent-saved", map[string]string{lifecycle.AnnotationReaping: markedAt, lifecycle.AnnotationDoNotReap: "true"})
	createRoleNamespace(t, admin, "agent-saved-by-label", map[string]string{lifecycle.AnnotationReaping: markedAt}, lifecycle.AnnotationDoNotReap, "true")
	createNamespace(t, admin, "agent-unbound")
	for _, namespace := range []string{
		"agent-staying", "agent-going", "agent-doubted", "agent-saved", "agent-saved-by-label", "agent-unbound",
	} {
		prepareObjects(t, admin, namespace)
	}
	mark(t, admin, "agent-going", markedAt)
	mark(t, admin, "agent-doubted", "yes")
	for name, labels := range map[string]map[string]string{
		"role.ceo.dexorder.test": templateLabels, "templates-of-ours": templateLabels, "role.unlabelled": nil,
	} {
		template := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
		if _, err := admin.CoreV1().ConfigMaps("dexorder-system").Create(t.Context(), template, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// templateLabels are those of a role's template.
var templateLabels = map[string]string{lifecycle.LabelRoleTemplate: "ceo"}

// prepareObjects creates what the reaper deletes: of each kind one that is plain, and what it may have a right to.
func prepareObjects(t *testing.T, c kubernetes.Interface, namespace string) {
	t.Helper()
	ctx, create := t.Context(), metav1.CreateOptions{}
	stamp := map[string]string{lifecycle.LabelCreatedByPodUID: "some"}
	free := map[string]string{lifecycle.LabelUserType: "free"}
	enterprise := map[string]string{lifecycle.LabelUserType: "enterprise"}
	var errs []error
	add := func(_ any, err error) { errs = append(errs, err) }

	for name, labels := range map[string]map[string]string{"plain": nil, "stamped": stamp} {
		meta := metav1.ObjectMeta{Name: name, Labels: labels}
		add(c.CoreV1().ConfigMaps(namespace).Create(ctx, &corev1.ConfigMap{ObjectMeta: meta}, create))
		add(c.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{ObjectMeta: meta}, create))
		job := newJob(name)
		job.Labels = labels
		add(c.BatchV1().Jobs(namespace).Create(ctx, job, create))
	}
	for name, labels := range map[string]map[string]string{"plain": enterprise, "unlabelled": nil, "stamped": stamp, "free": free} {
		d := newDeployment(name)
		d.Labels = labels
		add(c.AppsV1().Deployments(namespace).Create(ctx, d, create))
		add(c.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, newClaim(name, labels), create))
	}
	keep, until := lifecycle.AnnotationDoNotReap, lifecycle.AnnotationDoNotReapUntil
	for name, marks := range map[string]struct{ labels, annotations map[string]string }{
		"free-kept":          {nil, map[string]string{keep: "true"}},
		"free-kept-by-label": {map[string]string{keep: "true"}, nil},
		"free-kept-for-ever": {nil, map[string]string{until: "when it is done"}},
		"free-not-kept":      {map[string]string{keep: "false"}, map[string]string{keep: "false", until: earlier}},
	} {
		d := newDeployment(name)
		d.Labels, d.Annotations = map[string]string{lifecycle.LabelUserType: "free"}, marks.annotations
		maps.Copy(d.Labels, marks.labels)
		add(c.AppsV1().Deployments(namespace).Create(ctx, d, create))
		claim := newClaim(name, d.Labels)
		claim.Annotations = marks.annotations
		add(c.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, claim, create))
	}
	add(c.AppsV1().StatefulSets(namespace).Create(ctx, newStatefulSet("plain"), create))
	add(c.AppsV1().DaemonSets(namespace).Create(ctx, newDaemonSet("plain"), create))
	add(c.AppsV1().ReplicaSets(namespace).Create(ctx, newReplicaSet("plain"), create))
	add(c.CoreV1().ReplicationControllers(namespace).Create(ctx, newReplicationController("plain"), create))
	add(c.BatchV1().CronJobs(namespace).Create(ctx, newCronJob("plain"), create))
	add(c.CoreV1().Pods(namespace).Create(ctx, newPod("plain"), create))
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// deleteObject deletes an object of a role agent's namespace.
func deleteObject(resource, namespace, name string) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		var group rest.Interface
		switch resource {
		case "jobs", "cronjobs":
			group = c.BatchV1().RESTClient()
		case "deployments", "statefulsets", "daemonsets", "replicasets":
			group = c.AppsV1().RESTClient()
		default:
			group = c.CoreV1().RESTClient()
		}
		options := dryRunDelete
		return group.Delete().Namespace(namespace).Resource(resource).Name(name).Body(&options).Do(ctx).Error()
	}
}

func roleNamespaceDeletions() []attempt {
	const refusal = "the reaper deletes in namespaces of role agents what is in a marked one, and what an agent made"
	var attempts []attempt
	deletion := func(resource, namespace, object, refusal string) {
		attempts = append(attempts, attempt{object + " among " + resource + " in " + namespace, deleteObject(resource, namespace, object), refusal})
	}
	for _, resource := range []string{
		"deployments", "statefulsets", "daemonsets", "replicasets", "replicationcontrollers", "cronjobs", "jobs", "persistentvolumeclaims",
	} {
		deletion(resource, "agent-going", "plain", "")
		deletion(resource, "agent-staying", "plain", refusal+": "+resource+` "plain" in namespace "agent-staying" is neither`)
		deletion(resource, "agent-saved", "plain", refusal)
		deletion(resource, "agent-saved-by-label", "plain", refusal)
		deletion(resource, "agent-doubted", "plain", refusal)
		deletion(resource, "agent-unbound", "plain", "cannot delete resource")
	}
	for _, resource := range []string{"configmaps", "secrets", "jobs"} {
		deletion(resource, "agent-staying", "stamped", "")
		deletion(resource, "agent-unbound", "stamped", "cannot delete resource")
	}
	// What nobody stamped goes with the namespace or not at all.
	for _, resource := range []string{"configmaps", "secrets"} {
		deletion(resource, "agent-staying", "plain", refusal)
		deletion(resource, "agent-going", "plain", refusal)
	}
	for _, resource := range []string{"deployments", "persistentvolumeclaims"} {
		deletion(resource, "agent-staying", "free", "")
		deletion(resource, "agent-staying", "free-not-kept", "")
		for _, kept := range []string{"free-kept", "free-kept-by-label", "free-kept-for-ever"} {
			deletion(resource, "agent-staying", kept, "is protected by its annotation or label do-not-reap or do-not-reap-until")
		}
		deletion(resource, "agent-staying", "unlabelled", refusal)
		// A stamp is for what agents make and forget, and not for agents.
		deletion(resource, "agent-staying", "stamped", refusal)
	}
	deletion("pods", "agent-staying", "plain", "")
	return attempts
}

func createSecret(s *corev1.Secret) func(context.Context, kubernetes.Interface) error {
	return func(ctx context.Context, c kubernetes.Interface) error {
		_, err := c.CoreV1().Secrets("dexorder-system").Create(ctx, s, dryRunCreate)
		return err
	}
}

func archiveWrites() []attempt {
	const refusal = "the reaper creates and deletes archives here"
	meta := metav1.ObjectMeta{Name: "archive-agent-ceo", Labels: map[string]string{archiveLabel: "agent-ceo"}}
	plain := metav1.ObjectMeta{Name: "archive-agent-ceo"}
	token := meta
	token.Annotations = map[string]string{corev1.ServiceAccountNameKey: "lifecycle-webhook"}
	configMap := func(m metav1.ObjectMeta) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, c kubernetes.Interface) error {
			_, err := c.CoreV1().ConfigMaps("dexorder-system").Create(ctx, &corev1.ConfigMap{ObjectMeta: m}, dryRunCreate)
			return err
		}
	}
	return []attempt{
		{"ConfigMap", configMap(meta), ""},
		{"ConfigMap without the label", configMap(plain), refusal + `: configmaps "archive-agent-ceo" is none`},
		{"Secret", createSecret(&corev1.Secret{ObjectMeta: meta, Type: archiveSecretType}), ""},
		{"Secret without the label", createSecret(&corev1.Secret{ObjectMeta: plain, Type: archiveSecretType}), refusal},
		{"Secret of another type", createSecret(&corev1.Secret{ObjectMeta: meta}), refusal},
		{"token of another account", createSecret(&corev1.Secret{ObjectMeta: token, Type: corev1.SecretTypeServiceAccountToken}), refusal},
		{"deletion of a role's template", deleteObject("configmaps", "dexorder-system", "role.ceo.dexorder.test"), ""},
		{"deletion of somebody's own template", deleteObject("configmaps", "dexorder-system", "templates-of-ours"), refusal},
		{"deletion of what is named like a template", deleteObject("configmaps", "dexorder-system", "role.unlabelled"), refusal},
		{"creation of a template", configMap(metav1.ObjectMeta{Name: "role.ceo.dexorder.test-2", Labels: templateLabels}), refusal},
		{"deletion of the policy", deleteObject("configmaps", "dexorder-system", "lifecycle-policy"), refusal},
		{"deletion of the breaker", deleteObject("configmaps", "dexorder-system", "lifecycle-breaker"), refusal},
	}
}
