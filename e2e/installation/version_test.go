//go:build e2e

package installation

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/manifests"
)

// version is what can be installed: a directory of manifests, and the images that go with it.
type version struct {
	manifests string
	images    []string
}

// current is what is tested, previous and first what somebody has who upgrades to it: the version before, and the first
// release, which may be the same.
var current, previous, first version

// policy is the version's own, with its own sidecar and a reaper that is as quick as tests need it.
func (v version) policy(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(v.manifests, "base", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	changed := string(content)
	for _, image := range v.images {
		if strings.Contains(image, "/lifecycle-sidecar:") {
			changed = regexp.MustCompile(`(?m)^ {2}image: .*`).ReplaceAllString(changed, "  image: "+image)
		}
	}
	changed = strings.Replace(changed, "\n  interval: 1m ", "\n  interval: 1s ", 1)
	if strings.Count(changed, "\n  interval: 1s ") != 1 {
		t.Fatal("the policy does not say how often the reaper looks")
	}
	return changed
}

// kustomization writes one as somebody does who installs this version: the dev overlay, the images, a policy.
func (v version) kustomization(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := manifests.Compose(dir, filepath.Join(v.manifests, "overlays", "dev"), nil, v.images); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kustomization.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content = append(content, `
configMapGenerator:
- name: lifecycle-policy
  namespace: dexorder-system
  behavior: replace
  files: [policy.yaml]
  options:
    disableNameSuffixHash: true
`...)
	for name, content := range map[string]string{file: string(content), filepath.Join(dir, "policy.yaml"): v.policy(t)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// applyKustomization installs a version, or upgrades to it, and waits until its servers serve.
func (v version) applyKustomization(t *testing.T) {
	t.Helper()
	defer took(t, "installation by kubectl", time.Now())
	mustKubectl(t, "apply", "-k", v.kustomization(t))
	mustKubectl(t, "-n", systemNamespace, "rollout", "status", "deployment/"+serverName)
	awaitAdmission(t)
}

// took leaves in the test's log how long something took.
func took(t *testing.T, what string, start time.Time) {
	t.Helper()
	t.Logf("%s: %s", what, time.Since(start).Round(100*time.Millisecond))
}

// awaitAdmission waits until agents are admitted, and with a sidecar.
func awaitAdmission(t *testing.T) {
	t.Helper()
	eventually(t, tryAgent)
}

// clean leaves nothing of ours on the cluster, whatever was there, agents and their storage included.
func clean(t *testing.T) {
	t.Helper()
	defer took(t, "clean", time.Now())
	// Whatever a test before has left half done.
	if code, said := kubectl(t, "annotate", "--overwrite", "namespace", agentsNamespace, "lifecycle.dexorder.io/allow-delete=true"); code != 0 &&
		!strings.Contains(said, "NotFound") {
		t.Fatal(said)
	}
	removeRegistrations(t)
	for _, namespace := range []string{"default", systemNamespace} {
		mustHelm(t, "uninstall", release, "--namespace", namespace, "--ignore-not-found")
	}
	mustKubectl(t, "delete", "-l", "app.kubernetes.io/part-of=agent-lifecycle", "--wait=false",
		"clusterrole,clusterrolebinding,priorityclass,validatingadmissionpolicy,validatingadmissionpolicybinding")
	// Nobody waits here for what they have to finish. A namespace that finds Pods looks again after half their grace period.
	for _, namespace := range []string{agentsNamespace, roleNamespace, systemNamespace} {
		mustKubectl(t, "-n", namespace, "delete", "deployments", "--all")
		mustKubectl(t, "-n", namespace, "delete", "pods", "--all", "--force", "--grace-period=0")
	}
	mustKubectl(t, "delete", "namespace", "-l", "agent-role", "--wait=false")
	mustKubectl(t, "delete", "namespace", agentsNamespace, systemNamespace, "--ignore-not-found")
	eventually(t, func(ctx context.Context) error {
		list, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for i := range list.Items {
			if name := list.Items[i].Name; name == agentsNamespace || name == systemNamespace || strings.HasPrefix(name, "agent-") {
				return fmt.Errorf("namespace %s is there", name)
			}
		}
		return nil
	})
}

// removeRegistrations stops the servers from being asked.
func removeRegistrations(t *testing.T) {
	t.Helper()
	mustKubectl(t, "delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", registration, "--ignore-not-found")
}
