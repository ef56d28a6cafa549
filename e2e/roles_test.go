//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// idleAfter is the hurried reaper's.
const idleAfter = 10 * time.Second

// provisioned is the namespace of a role that the command line makes.
type provisioned struct {
	role

	// args are what provision is always told.
	args string
}

// newProvisioned sees to it that what a role leaves behind has gone when the test ends.
func newProvisioned(t *testing.T, name, flags string) *provisioned {
	t.Helper()
	p := &provisioned{role: role{t: t, name: lifecycle.RoleNamespacePrefix + name}}
	p.args = name + " --org dexorder --env e2e --image " + agentImage + flags
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		for what, err := range map[string]error{
			"namespace": client.CoreV1().Namespaces().Delete(ctx, p.name, metav1.DeleteOptions{}),
			"template":  client.CoreV1().ConfigMaps(systemNamespace).Delete(ctx, p.template(), metav1.DeleteOptions{}),
		} {
			if err != nil && !apierrors.IsNotFound(err) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
	t.Cleanup(func() { keepEvidence(t) })
	return p
}

// template is the name of the ConfigMap with which the reaper compares the namespace.
func (p *provisioned) template() string {
	return "role." + strings.TrimPrefix(p.name, lifecycle.RoleNamespacePrefix) + ".dexorder.e2e"
}

func (p *provisioned) provision(code int, says, more string) string {
	p.t.Helper()
	return enter(p.t, code, says, "kubectl agents provision "+p.args+" "+more)
}

// kubectl enters a command for the namespace.
func (p *provisioned) kubectl(says, command string) string {
	p.t.Helper()
	return enter(p.t, 0, says, "kubectl -n "+p.name+" "+command)
}

// annotate writes an annotation on the namespace, as KEY=VALUE or KEY-.
func (p *provisioned) annotate(annotation string) {
	p.t.Helper()
	enter(p.t, 0, "annotated", "kubectl annotate namespace "+p.name+" "+annotation)
}

// versions are UID, resourceVersion and perhaps the time of deletion of all that belongs to the role, by kind and name.
func (p *provisioned) versions() map[string]string {
	p.t.Helper()
	const (
		kinds = "resourcequotas,limitranges,networkpolicies,serviceaccounts,roles,rolebindings,persistentvolumeclaims,secrets," +
			"configmaps,deployments,replicasets,pods"
		columns = `{.kind} {.metadata.name} {.metadata.uid} {.metadata.resourceVersion} {.metadata.deletionTimestamp}{"\n"}`
	)
	said := p.kubectl("Deployment agent ", "get "+kinds+" -o jsonpath='{range .items[*]}"+columns+"{end}'") +
		enter(p.t, 0, p.name, "kubectl get namespace "+p.name+" -o jsonpath='"+columns+"'") +
		enter(p.t, 0, p.template(), "kubectl -n "+systemNamespace+" get configmap "+p.template()+" -o jsonpath='"+columns+"'")
	found := map[string]string{}
	for line := range strings.Lines(said) {
		fields := strings.Fields(line)
		found[fields[0]+" "+fields[1]] = strings.Join(fields[2:], " ")
	}
	return found
}

// expectUnchanged provisions once more and fails if that has written anything, or has the agent start again. What controllers and the
// reaper write at the same moment is told from that by another try.
func (p *provisioned) expectUnchanged() {
	p.t.Helper()
	eventually(p.t, lifeTimeout, func(context.Context) error {
		before := p.versions()
		p.provision(0, "namespace "+p.name+" is as it should be", "--yes")
		if diff := cmp.Diff(before, p.versions()); diff != "" {
			return fmt.Errorf("UIDs and resourceVersions (-before +after the second time):\n%s", diff)
		}
		return nil
	})
}

// awaitGone waits until the namespace has gone, and says when its deletion was first seen.
func (p *provisioned) awaitGone() (deleted time.Time) {
	p.t.Helper()
	eventually(p.t, lifeTimeout, func(ctx context.Context) error {
		ns, err := client.CoreV1().Namespaces().Get(ctx, p.name, metav1.GetOptions{})
		if deleted.IsZero() && (apierrors.IsNotFound(err) || err == nil && ns.DeletionTimestamp != nil) {
			deleted = time.Now()
		}
		if !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("the namespace is there"), err)
		}
		return nil
	})
	return deleted
}

// TestProvision: a role's namespace by the commands of docs/roles.md, as somebody types them, from none to one that the reaper has taken.
func TestProvision(t *testing.T) {
	t.Parallel()
	p := newProvisioned(t, "e2e-clerk", "")

	p.provision(1, "+++ Namespace agent-e2e-clerk as it would be", "--diff")
	p.provision(1, "error: not confirmed, nothing was changed", "<<<no")
	if _, err := client.CoreV1().Namespaces().Get(t.Context(), p.name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("the namespace is there before anybody has said yes: %v", err)
	}
	said := p.provision(0, "namespace agent-e2e-clerk is provisioned", "--yes")
	if !strings.Contains(said, "Secret api-keys is not there, and the agent goes without it") {
		t.Errorf("it does not say which Secrets are missing:\n%s", said)
	}
	p.running()

	// Secrets are somebody else's: the agent gets them by name, and they stay as they are.
	p.kubectl("created", "create secret generic api-keys --from-literal=API_KEY=of-the-clerk")
	p.kubectl("created", "create secret generic mcp --from-literal=servers.json='{}'")
	p.kubectl("restarted", "rollout restart deployment agent")
	p.kubectl("successfully rolled out", "rollout status deployment agent --timeout=3m")
	if environ := p.call("GET", "read", "path", "/proc/self/environ"); !strings.Contains(environ, "API_KEY=of-the-clerk\x00") {
		t.Errorf("the agent has not got its key: %q", environ)
	}
	if got := p.call("GET", "read", "path", "/etc/agent/mcp/servers.json"); got != "{}" {
		t.Errorf("the agent has not got its MCP servers: %q", got)
	}
	const file = "/home/appuser/workspace/notes"
	p.call("POST", "write", "path", file, "content", "work of weeks")

	p.expectUnchanged()
	p.provision(0, "namespace agent-e2e-clerk is as it should be", "--diff")

	pod := p.running()
	p.kubectl("patched", `patch resourcequota role-namespace --type=merge -p '{"spec": {"hard": {"pods": "99"}}}'`)
	p.kubectl("deleted", "delete networkpolicy default-deny")
	drift := p.provision(1, `-    pods: "99"`, "--diff")
	for _, want := range []string{`+    pods: "10"`, "+++ NetworkPolicy default-deny as it would be"} {
		if !strings.Contains(drift, want) {
			t.Errorf("the diff does not say %q:\n%s", want, drift)
		}
	}
	p.provision(0, "2 objects changed", "<<<yes")
	enter(t, 1, `in org "dexorder" and environment "e2e", and not in org "other"`, "kubectl agents provision e2e-clerk --org other --env e2e --yes")
	p.provision(0, "namespace agent-e2e-clerk is as it should be", "--diff")
	if now := p.running(); now != pod {
		t.Errorf("the agent's Pod was %s and is %s", pod, now)
	}

	// Protected for a while, so that the hurried reaper leaves the time to look and to change one's mind.
	p.annotate("do-not-reap-until=" + time.Now().Add(10*time.Minute).UTC().Format(time.RFC3339))
	before := p.versions()
	said = enter(t, 0, "to be scaled from 1 to 0", "kubectl agents deprovision e2e-clerk --yes")
	for _, want := range []string{
		"The reaper keeps the namespace all the same", "Once nothing keeps it any more it is idle.",
		"Deployment agent; PersistentVolumeClaim workdir; Secrets api-keys, mcp;", "Its objects and volumes are kept for ",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	after := p.versions()
	for object, was := range before {
		uid, _, _ := strings.Cut(was, " ")
		if now := strings.Fields(after[object]); !strings.HasPrefix(object, "Pod ") && (len(now) != 2 || now[0] != uid) {
			t.Errorf("%s was %s, and is %v, as if deprovisioning deleted anything", object, was, now)
		}
	}
	p.provision(1, "error: refused: namespace agent-e2e-clerk was deprovisioned", "--yes")
	enter(t, 0, "to be scaled to 1", "kubectl agents deprovision e2e-clerk --undo --yes")
	if got := p.call("GET", "read", "path", file); got != "work of weeks" {
		t.Errorf("the agent that came back reads %q", got)
	}
	p.provision(0, "namespace agent-e2e-clerk is as it should be", "--diff")

	p.annotate("do-not-reap-until-")
	stopped := time.Now()
	enter(t, 0, "kubectl agents deprovision --undo agent-e2e-clerk", "kubectl agents deprovision e2e-clerk --yes")
	if after := p.awaitGone().Sub(stopped); after < idleAfter {
		t.Errorf("the namespace went after %s: being deprovisioned must not make it go before %s", after, idleAfter)
	}
	eventually(t, clusterTimeout, func(ctx context.Context) error {
		_, err := client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, p.template(), metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("the template is there, which no namespace needs"), err)
		}
		return nil
	})
	enter(t, 1, "kubectl agents restore agent-e2e-clerk", "kubectl agents deprovision --undo e2e-clerk")
}

// TestProvisionedAgentShutsDown: a role agent that stops when it is idle deletes its own Deployment, past network policies that name the
// cluster's API server; then its namespace is idle like any other. No cluster of these tests enforces a NetworkPolicy: what is seen is
// that the API server takes them, and that the agent works beside them.
func TestProvisionedAgentShutsDown(t *testing.T) {
	t.Parallel()
	p := newProvisioned(t, "e2e-idler", " --with shuts-down")
	p.provision(0, "namespace agent-e2e-idler is provisioned", "--yes")
	p.running()
	policy, err := client.NetworkingV1().NetworkPolicies(p.name).Get(t.Context(), "self-delete", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(apiServerAddresses(t), egressOf(policy)); diff != "" {
		t.Errorf("where the sidecar finds the API server (-want +got):\n%s", diff)
	}
	p.expectUnchanged()

	time.Sleep(minimumLifetime)
	p.call("POST", "exit", "code", "42", "file", "42")
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		_, err := client.AppsV1().Deployments(p.name).Get(ctx, "agent", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return errors.Join(errors.New("the agent's Deployment is there"), err)
		}
		events, err := client.CoreV1().Events(p.name).List(ctx, metav1.ListOptions{FieldSelector: "reason=SelfDeleted"})
		if err != nil || len(events.Items) == 0 {
			return errors.Join(errors.New("nothing says that it has deleted itself"), err)
		}
		return nil
	})
	p.awaitGone()
}
