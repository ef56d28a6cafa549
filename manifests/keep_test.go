package manifests

import (
	"context"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// testKeep asks for the deletion of what agents run by, in dry runs so that each finds everything in place.
func testKeep(t *testing.T, cp *controlplane.ControlPlane) {
	administrator := kubernetes.NewForConfigOrDie(cp.Config)
	cleaner := impersonate(cp, controlplane.ServiceAccount("kube-system", "namespace-controller"))
	dryRun := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	namespace := func(name string) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, client kubernetes.Interface) error {
			return client.CoreV1().Namespaces().Delete(ctx, name, dryRun)
		}
	}
	account := func(namespace, name string) func(context.Context, kubernetes.Interface) error {
		return func(ctx context.Context, client kubernetes.Interface) error {
			return client.CoreV1().ServiceAccounts(namespace).Delete(ctx, name, dryRun)
		}
	}
	allow := func(value string) {
		t.Helper()
		patch := []byte(`{"metadata": {"annotations": {"lifecycle.dexorder.io/allow-delete": ` + value + `}}}`)
		_, err := administrator.CoreV1().Namespaces().Patch(t.Context(), "dexorder-agents", types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	createNamespace(t, administrator, "dexorder-agents-two")
	eventually(t, "the admission policy is not in force", func(ctx context.Context) bool {
		return namespace("dexorder-agents")(ctx, administrator) != nil
	})
	for _, test := range []struct {
		name    string
		client  kubernetes.Interface
		delete  func(context.Context, kubernetes.Interface) error
		allow   string
		refusal string
	}{
		{"namespace", administrator, namespace("dexorder-agents"), "null", `namespace "dexorder-agents" stays, since agents run there`},
		{"account", administrator, account("dexorder-agents", "agent-lifecycle"), "null",
			`service account "agent-lifecycle" of namespace "dexorder-agents" stays, since agents run there`},
		{"how to", administrator, namespace("dexorder-agents"), "null",
			"kubectl annotate namespace dexorder-agents lifecycle.dexorder.io/allow-delete=true"},
		{"not quite allowed", administrator, namespace("dexorder-agents"), `"false"`, "stays"},
		{"allowed", administrator, namespace("dexorder-agents"), `"true"`, ""},
		{"account, allowed", administrator, account("dexorder-agents", "agent-lifecycle"), `"true"`, ""},
		{"account, of a namespace that goes", cleaner, account("dexorder-agents", "agent-lifecycle"), "null", ""},
		{"another account", administrator, account("dexorder-agents", "default"), "null", ""},
		{"the system", administrator, namespace("dexorder-system"), "null", ""},
		{"another namespace", administrator, namespace("dexorder-agents-two"), "null", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			allow(test.allow)
			err := test.delete(t.Context(), test.client)
			switch {
			case test.refusal == "" && err != nil && !strings.Contains(err.Error(), "not found"):
				t.Errorf("refused: %v", err)
			case test.refusal != "" && (err == nil || !strings.Contains(err.Error(), test.refusal)):
				t.Errorf("got %v, want %q", err, test.refusal)
			}
		})
	}
	allow("null")
}

// What kubectl removes leaves nothing behind that any installation puts outside of the system's own namespace, but what
// agents run by; and it asks for no kinds that a cluster may not know.
func TestRemovalIsComplete(t *testing.T) {
	name := func(kind, namespace, name string) string { return kind + " " + namespace + "/" + name }
	removed := map[string]bool{}
	for _, o := range render(t, "removal") {
		removed[name(o.GetKind(), o.GetNamespace(), o.GetName())] = true
		if group := o.GroupVersionKind().Group; strings.HasPrefix(group, "monitoring.") || strings.HasPrefix(group, "cert-manager.") {
			t.Errorf("%s %s is of a kind that not every cluster knows", o.GetKind(), o.GetName())
		}
	}
	stays := []string{name("Namespace", "", "dexorder-agents"), name("ServiceAccount", "dexorder-agents", "agent-lifecycle")}
	for _, object := range stays {
		if removed[object] {
			t.Errorf("%s is removed", object)
		}
		removed[object] = true
	}
	for _, installation := range installations {
		for _, o := range render(t, installation) {
			if object := name(o.GetKind(), o.GetNamespace(), o.GetName()); o.GetNamespace() != "dexorder-system" && !removed[object] {
				t.Errorf("%s of %s is left behind", object, installation)
			}
		}
	}
}

// What helm leaves is what kubectl leaves.
func TestHelmKeepsWhatAgentsRunBy(t *testing.T) {
	forEachInstallation(t, func(t *testing.T, in installed) {
		for _, o := range in.objects {
			stays := o.GetKind() == "Namespace" && o.GetName() == "dexorder-agents" ||
				o.GetKind() == "ServiceAccount" && o.GetNamespace() == "dexorder-agents"
			if keep := o.GetAnnotations()["helm.sh/resource-policy"] == "keep"; keep != stays {
				t.Errorf("%s %s is kept by helm: %v, want %v", o.GetKind(), o.GetName(), keep, stays)
			}
		}
	})
}
