//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestLife keeps the promises about one agent's end, with a sidecar that asks the kernel how it ended.
func TestLife(t *testing.T) { lives(t, "life") }

// TestLifeByFile keeps them with a sidecar for kernels that do not tell how a process ended.
func TestLifeByFile(t *testing.T) {
	useSidecar(t, "ghcr.io/dexorder/lifecycle-sidecar:e2e-file")
	lives(t, "file")
}

// useSidecar changes the sidecar that new agents get, for the length of the test.
func useSidecar(t *testing.T, image string) {
	t.Helper()
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	change := func(ctx context.Context, change func(policy string) string) error {
		cm, err := maps.Get(ctx, "lifecycle-policy", metav1.GetOptions{})
		if err != nil {
			return err
		}
		cm.Data["policy.yaml"] = change(cm.Data["policy.yaml"])
		if _, err := maps.Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
			return err
		}
		if err := restartServers(ctx); err != nil { // faster than the kubelet brings them the new file
			return err
		}
		return serversRolledOut(ctx)
	}
	var before string
	err := change(t.Context(), func(policy string) string {
		before = policy
		return regexp.MustCompile(`(?m)^ {2}image: .*`).ReplaceAllString(policy, "  image: "+image)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := change(context.WithoutCancel(t.Context()), func(string) string { return before }); err != nil {
			t.Error(err)
		}
	})
}

// lives are the promises that hold whichever way the sidecar learns of an exit. Agents have names of their own.
func lives(t *testing.T, prefix string) {
	for _, promise := range []struct {
		name string
		keep func(*testing.T, string)
	}{
		{"idle", idleIsGone},
		{"anonymous", anonymousLeavesNothing},
		{"storage", storageIsKept},
		{"exit-0", crashIsRestarted(0)},
		{"exit-1", crashIsRestarted(1)},
		{"oom", outOfMemoryIsRestarted},
		{"sigkill", signalIsRestarted(9, 137)},
		{"sigterm", signalIsRestarted(15, 0)},
		{"forged", forgedExitCode},
		{"stale", staleExitCode},
		{"exec", otherProcessExits42},
		{"enterprise", enterpriseStays},
		{"raise", raiseKeepsStorage},
		{"too-soon", tooSoonGetsFreshPod},
		{"sidecar-before", sidecarKilledBefore},
		{"sidecar-during", sidecarKilledDuring},
		{"sidecar-after", sidecarKilledAfter},
		{"rollout", rolloutIsNotIdleness},
		{"manager", managerStopsIdleAgent},
		{"triggers", triggersKeepAgent},
		{"leases", leasesKeepAgent},
	} {
		t.Run(promise.name, func(t *testing.T) {
			t.Parallel()
			promise.keep(t, prefix+"-"+promise.name)
		})
	}
}

// leave42 ends an agent as its lifecycle manager would: with the word, and the code.
func (l *life) leave42() {
	l.t.Helper()
	l.awaitAge()
	l.must("POST", "exit", "code", "42", "file", "42")
}

// An agent that ends with 42 is gone, and its Service with it, though nobody but the reaper has said that it is its.
func idleIsGone(t *testing.T, name string) {
	l := bear(t, name)
	service(t, name)
	l.awaitOwned()
	l.leave42()
	l.expectGone()
}

// The storage of an anonymous user goes with the agent, also where it was made by hand.
func anonymousLeavesNothing(t *testing.T, name string) {
	claim(t, name)
	l := bear(t, name, withUserType(lifecycle.Anonymous), withClaim)
	l.awaitOwned()
	l.leave42()
	l.expectGone()
	_, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(t.Context(), name+"-data", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the claim is there: %v", err)
	}
}

// The storage of others is kept, and is mounted again by the next agent of that name.
func storageIsKept(t *testing.T, name string) {
	claim(t, name)
	l := bear(t, name, withUserType(lifecycle.Paid), withClaim)
	l.must("POST", "data", "content", "work of days")
	l.leave42()
	l.expectGone()
	next := bear(t, name, withUserType(lifecycle.Paid), withClaim)
	if got := next.must("GET", "data"); got != "work of days" {
		t.Errorf("the next agent finds %q", got)
	}
}

// A crash, or the end of all work, is no idleness: the kubelet starts the agent again.
func crashIsRestarted(code int) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		l := bear(t, name)
		l.exit(code)
		l.expectRestarted(int32(code))
		l.expectKept()
	}
}

func outOfMemoryIsRestarted(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "oom")
	l.expectRestarted(137)
	l.expectKept()
}

func signalIsRestarted(signal int, wantCode int32) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		l := bear(t, name)
		l.awaitAge()
		_, _ = l.call("POST", "kill", "signal", fmt.Sprint(signal)) // the answer may not get out any more
		l.expectRestarted(wantCode)
		l.expectKept()
	}
}

// Saying 42 is not ending with it.
func forgedExitCode(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "exit", "code", "1", "file", "42")
	l.expectRestarted(1)
	l.expectKept()
}

// Nor is having said it once, when a sidecar comes anew and finds it.
func staleExitCode(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.must("POST", "file", "name", "exit_code", "content", "42")
	l.killSidecar()
	l.expectSidecarSays("An earlier run of the agent left exit code 42")
	l.expectKept()
}

// Another process that ends with 42, such as an exec session, is not the agent.
func otherProcessExits42(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	if code, out := l.exec("/bin/e2e-agent", "exit", "42"); !strings.Contains(out, "42") && code != 42 {
		t.Fatalf("the session ended with %d: %s", code, out)
	}
	l.expectKept()
	if c := l.status(lifecycle.AgentContainer); c.RestartCount != 0 {
		t.Errorf("the agent was started again: %+v", c)
	}
}

// Enterprise agents never stop: one that ends with 42 is started again.
func enterpriseStays(t *testing.T, name string) {
	l := bear(t, name, withUserType(lifecycle.Enterprise))
	l.exit(42)
	l.expectRestarted(42)
	l.expectSidecarSays("never shuts down", "Agent ended")
	l.expectKept()
}

// A user who pays before the agent ends keeps the storage.
func raiseKeepsStorage(t *testing.T, name string) {
	claim(t, name)
	l := bear(t, name, withUserType(lifecycle.Anonymous), withClaim)
	l.awaitOwned()
	raise := []byte(`{"metadata": {"labels": {"` + lifecycle.LabelUserType + `": "paid"}}}`)
	editor := rest.CopyConfig(config) // the policy names who may change a user type
	editor.Impersonate = rest.ImpersonationConfig{UserName: "sales", Groups: []string{"system:masters"}}
	sales, err := kubernetes.NewForConfig(editor)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sales.AppsV1().Deployments(agentsNamespace).Patch(t.Context(), name, types.MergePatchType, raise, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx) // the new user type is in the template too
		if err != nil || len(pods) != 1 || pods[0].Labels[lifecycle.LabelUserType] != "paid" {
			return fmt.Errorf("the raise has not arrived: %s, %w", describePods(pods), err)
		}
		return nil
	})
	l.awaitRunning()
	l.leave42()
	l.expectGone()
	kept, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(t.Context(), name+"-data", metav1.GetOptions{})
	if err != nil || kept.DeletionTimestamp != nil || kept.Labels[lifecycle.LabelUserType] != "paid" {
		t.Errorf("the claim was not kept: %+v, %v", kept, err)
	}
}

// An agent that ends with 42 right after its start is broken: it is kept, and gets a fresh Pod.
func tooSoonGetsFreshPod(t *testing.T, name string) {
	l := &life{t: t, name: name}
	l.create(func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Command = []string{"/bin/e2e-agent", "exit", "42"}
		d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
	})
	first := podOf(t, l.deployment).Name
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		for i := range pods {
			if pods[i].Name != first && pods[i].DeletionTimestamp == nil {
				return nil
			}
		}
		return fmt.Errorf("there is no fresh Pod: %s", describePods(pods))
	})
	l.expectKept()
}

// A sidecar that is not there when the agent ends finds out when it is back.
func sidecarKilledBefore(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	l.killSidecar()
	l.must("POST", "exit", "code", "42", "file", "42")
	l.expectGone()
}

// So does one that is killed while it asks.
func sidecarKilledDuring(t *testing.T, name string) {
	l := bear(t, name)
	l.leave42()
	time.Sleep(50 * time.Millisecond) // about when it asks
	l.killSidecar()
	l.expectGone()
}

// One that is killed when its call was accepted asks for the same again, and nothing comes of that.
func sidecarKilledAfter(t *testing.T, name string) {
	t.Skip("not seen to work on a cluster yet")
	l := bear(t, name)
	deployments := client.AppsV1().Deployments(agentsNamespace)
	patch := func(finalizers string) {
		t.Helper()
		body := []byte(`{"metadata": {"finalizers": ` + finalizers + `}}`)
		if _, err := deployments.Patch(t.Context(), name, types.MergePatchType, body, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	patch(`["e2e.lifecycle.dexorder.io/hold"]`) // else the Pod is gone too soon
	l.leave42()
	l.expectSidecarSays("Deletion accepted")
	l.killSidecar()
	l.expectSidecarSays("An earlier run of the agent left exit code 42")
	patch("null")
	l.expectGone()
}

// A new image stops the old Pod, with SIGTERM, and that is no idleness.
func rolloutIsNotIdleness(t *testing.T, name string) {
	l := bear(t, name)
	l.awaitAge()
	old := l.pod.Name
	patch := []byte(`{"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}`)
	if _, err := client.AppsV1().Deployments(agentsNamespace).Patch(t.Context(), name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[0].Name == old {
			return fmt.Errorf("the rollout is not done: %s", describePods(pods))
		}
		return nil
	})
	l.awaitRunning()
	l.expectKept()
}

// The lifecycle manager warns, stops the agent that does nothing, and the agent is gone.
func managerStopsIdleAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.4"))
	l.expectGone()
}

// An agent with a trigger or a lease does not stop, however short its timeout is.
func triggersKeepAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.3"))
	l.must("PUT", "manager/v1/triggers/cron")
	time.Sleep(25 * time.Second)
	if got := l.must("GET", "manager/v1/status"); !strings.Contains(got, `"RUNNING"`) || !strings.Contains(got, `"id":"cron"`) {
		t.Errorf("status: %s", got)
	}
	l.expectKept()
	l.must("DELETE", "manager/v1/triggers/cron")
	l.expectGone()
}

// A lease keeps the agent for as long as it was taken for, and nobody has to end it.
func leasesKeepAgent(t *testing.T, name string) {
	l := bear(t, name, withManager("IDLE_TIMEOUT_MINUTES=0.2"))
	answer, err := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name + ":8080").
		SubResource("proxy").Suffix("manager/v1/leases").Body([]byte(`{"id": "job-1", "ttlSeconds": 25}`)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("lease: %v: %s", err, answer)
	}
	time.Sleep(20 * time.Second)
	if got := l.must("GET", "manager/v1/status"); !strings.Contains(got, `"RUNNING"`) || !strings.Contains(got, `"id":"job-1"`) {
		t.Errorf("status: %s", got)
	}
	l.expectGone()
}
