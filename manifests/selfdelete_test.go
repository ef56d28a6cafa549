package manifests

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// longest is the longest name that fits a label. The name of its Pods holds 58 characters of it and five more.
var longest = strings.Repeat("long", 15) + "est"

// testSelfDelete asks for deletions, in dry runs so that each finds everything in place.
func testSelfDelete(t *testing.T, cp *controlplane.ControlPlane) {
	client := kubernetes.NewForConfigOrDie(cp.Config)
	for _, namespace := range []string{"dexorder-agents", "agent-cto", "elsewhere"} {
		prepareSelfDelete(t, client, namespace)
	}

	user := controlplane.ServiceAccount("dexorder-agents", "agent-lifecycle")
	role := controlplane.ServiceAccount("agent-cto", "cto")
	bound := boundTo(user, "self-6d4b75cb6d-x2v9q")
	probe := impersonate(cp, user)
	eventually(t, "the admission policy is not in force", func(ctx context.Context) bool {
		return deleteOne(ctx, probe, "deployments", "dexorder-agents", "self") != nil
	})

	testOrphaning(t, impersonate(cp, bound))
	for _, test := range []struct {
		name      string
		as        rest.ImpersonationConfig
		resource  string
		namespace string
		object    string
		refusal   string // empty: allowed
	}{
		{"own", bound, "deployments", "dexorder-agents", "self", ""},
		{"own claim", bound, "persistentvolumeclaims", "dexorder-agents", "self-data", ""},
		{"own, with the longest name", boundTo(user, longest[:58]+"x2v9q"), "deployments", "dexorder-agents", longest, ""},
		{"own claim, with the longest name", boundTo(user, longest[:58]+"x2v9q"), "persistentvolumeclaims",
			"dexorder-agents", longest, ""},
		{"role agent", boundTo(role, "self-6d4b75cb6d-x2v9q"), "deployments", "agent-cto", "self", ""},
		{"neighbour", bound, "deployments", "dexorder-agents", "neighbour",
			`agents delete only what is their own: deployments "neighbour" of Deployment "neighbour"` +
				` is not of Pod "self-6d4b75cb6d-x2v9q"`},
		{"name that begins alike", boundTo(user, "selfish-6d4b75cb6d-x2v9q"), "deployments", "dexorder-agents", "self",
			`deployments "self" of Deployment "self" is not of Pod "selfish-6d4b75cb6d-x2v9q"`},
		{"neighbour's claim", bound, "persistentvolumeclaims", "dexorder-agents", "neighbour-data",
			`persistentvolumeclaims "neighbour-data" of Deployment "neighbour" is not of Pod "self-6d4b75cb6d-x2v9q"`},
		{"nobody's claim", bound, "persistentvolumeclaims", "dexorder-agents", "unlabelled",
			`persistentvolumeclaims "unlabelled" of Deployment "" is not of Pod "self-6d4b75cb6d-x2v9q"`},
		{"neighbour of a role agent", boundTo(role, "self-6d4b75cb6d-x2v9q"), "deployments", "agent-cto", "neighbour",
			"agents delete only what is their own"},
		{"other agents' namespace", boundTo(role, "neighbour-6d4b75cb6d-x2v9q"), "deployments", "dexorder-agents", "self",
			"agents delete only what is their own"},
		{"other agents' namespace, with a fitting name", boundTo(role, "self-6d4b75cb6d-x2v9q"), "deployments", "dexorder-agents", "self",
			"agents delete nothing in another namespace"},
		{"with a finalizer that orphans", boundTo(user, "orphaning-6d4b75cb6d-x2v9q"), "deployments", "dexorder-agents", "orphaning",
			"agents leave nothing behind"},
		{"unbound token", user, "deployments", "dexorder-agents", "self",
			"agents delete only with a service account token that is bound to a Pod"},
		{"two Pods in the token", boundTo(user, "self-6d4b75cb6d-x2v9q", "neighbour-6d4b75cb6d-x2v9q"), "deployments",
			"dexorder-agents", "self", "agents delete only with a service account token that is bound to a Pod"},
		{"all of them", bound, "deployments", "dexorder-agents", "",
			"agents delete objects by name, never as a collection"},
		{"all claims", bound, "persistentvolumeclaims", "dexorder-agents", "",
			"agents delete objects by name, never as a collection"},
		{"administrator", rest.ImpersonationConfig{UserName: "admin"}, "deployments", "dexorder-agents", "self", ""},
		{"administrator, all of them", rest.ImpersonationConfig{UserName: "admin"}, "deployments", "dexorder-agents", "", ""},
		{"garbage collector", controlplane.ServiceAccount("kube-system", "generic-garbage-collector"),
			"persistentvolumeclaims", "dexorder-agents", "self-data", ""},
		{"namespace of somebody else", bound, "deployments", "elsewhere", "self", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			client := impersonate(cp, test.as)
			var err error
			if test.object == "" {
				err = deleteAll(t.Context(), client, test.resource, test.namespace)
			} else {
				err = deleteOne(t.Context(), client, test.resource, test.namespace, test.object)
			}
			switch {
			case test.refusal == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.refusal != "" && err == nil:
				t.Error("allowed")
			case test.refusal != "" && !strings.Contains(err.Error(), test.refusal):
				t.Errorf("refused with %q, want %q in it", err, test.refusal)
			}
		})
	}
}

// testOrphaning asks for what would leave ReplicaSets behind, in all forms that there are.
func testOrphaning(t *testing.T, client kubernetes.Interface) {
	orphan, background := metav1.DeletePropagationOrphan, metav1.DeletePropagationBackground
	for name, test := range map[string]struct {
		options metav1.DeleteOptions
		refused bool
	}{
		"Orphan": {metav1.DeleteOptions{PropagationPolicy: &orphan}, true},
		//nolint:staticcheck // Deprecated, and still obeyed by the API server.
		"orphanDependents": {metav1.DeleteOptions{OrphanDependents: new(true)}, true},
		"Background":       {metav1.DeleteOptions{PropagationPolicy: &background}, false},
		"none":             {metav1.DeleteOptions{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			test.options.DryRun = []string{metav1.DryRunAll}
			err := client.AppsV1().Deployments("dexorder-agents").Delete(t.Context(), "self", test.options)
			if refused := err != nil && strings.Contains(err.Error(), "agents leave nothing behind"); refused != test.refused ||
				err != nil && !refused {
				t.Errorf("got %v, want it refused: %v", err, test.refused)
			}
		})
	}
	// Without a body there are no options to look at.
	err := client.AppsV1().RESTClient().Delete().Namespace("dexorder-agents").Resource("deployments").Name("self").
		Param("dryRun", metav1.DryRunAll).Do(t.Context()).Error()
	if err != nil {
		t.Errorf("without options: %v", err)
	}
}

func prepareSelfDelete(t *testing.T, client kubernetes.Interface, namespace string) {
	t.Helper()
	if namespace != "dexorder-agents" {
		createNamespace(t, client, namespace)
	}
	for _, name := range []string{"self", "neighbour", "orphaning", longest} {
		d := newDeployment(name)
		if name == "orphaning" {
			d.Finalizers = []string{metav1.FinalizerOrphanDependents}
		}
		_, err := client.AppsV1().Deployments(namespace).Create(t.Context(), d, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, owner := range map[string]string{
		"self-data": "self", "neighbour-data": "neighbour", longest: longest, "unlabelled": "",
	} {
		var labels map[string]string
		if owner != "" {
			labels = map[string]string{lifecycle.LabelDeployment: owner}
		}
		_, err := client.CoreV1().PersistentVolumeClaims(namespace).Create(t.Context(), newClaim(name, labels),
			metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// boundTo is the identity behind a token that is bound to a Pod; with two names, one that nobody was issued.
func boundTo(account rest.ImpersonationConfig, pods ...string) rest.ImpersonationConfig {
	account.Extra = map[string][]string{
		"authentication.kubernetes.io/pod-name": pods,
		"authentication.kubernetes.io/pod-uid":  make([]string, len(pods)),
	}
	for i, pod := range pods {
		account.Extra["authentication.kubernetes.io/pod-uid"][i] = "uid-of-" + pod
	}
	return account
}

func deleteOne(ctx context.Context, client kubernetes.Interface, resource, namespace, name string) error {
	options := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	if resource == "deployments" {
		return client.AppsV1().Deployments(namespace).Delete(ctx, name, options)
	}
	return client.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, name, options)
}

func deleteAll(ctx context.Context, client kubernetes.Interface, resource, namespace string) error {
	options := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	if resource == "deployments" {
		return client.AppsV1().Deployments(namespace).DeleteCollection(ctx, options, metav1.ListOptions{})
	}
	return client.CoreV1().PersistentVolumeClaims(namespace).DeleteCollection(ctx, options, metav1.ListOptions{})
}
