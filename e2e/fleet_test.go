//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// releaseBreaker begins with a full bucket, whatever the tests before have taken.
func releaseBreaker(t *testing.T) {
	t.Helper()
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	cm, err := maps.Get(t.Context(), breaker.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data = nil
	if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// starting is how many agents of a fleet start beside each other. Where more do, the container runtime of a small machine
// is asked again for what it has not finished, and finishes nothing.
const starting = 10

// fleet is many agents that run, and are old enough to end as idle.
func fleet(t *testing.T, prefix string, n int) []*life {
	t.Helper()
	lives := make([]*life, n)
	var running map[string]*corev1.Pod
	await := func(wanted int) {
		t.Helper()
		poll(t, time.Second, 4*time.Minute, func(ctx context.Context) (err error) {
			if running, err = runningPods(ctx, prefix+"-"); err != nil || len(running) < wanted {
				return fmt.Errorf("%d of %d agents run, of %d in all: %w", len(running), wanted, n, err)
			}
			return nil
		})
	}
	for i := range lives {
		await(i - starting)
		lives[i] = &life{t: t, name: fmt.Sprintf("%s-%02d", prefix, i)}
		lives[i].create(small)
	}
	await(n)
	for _, l := range lives {
		l.pod = running[l.name]
		l.awaitAge()
	}
	return lives
}

// runningPods returns the Pods that run of the agents whose names begin with prefix, by the agent's name.
func runningPods(ctx context.Context, prefix string) (map[string]*corev1.Pod, error) {
	list, err := client.CoreV1().Pods(agentsNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	running := map[string]*corev1.Pod{}
	for i := range list.Items {
		pod := &list.Items[i]
		if name := pod.Labels[lifecycle.LabelDeployment]; strings.HasPrefix(name, prefix) && runs(pod) {
			running[name] = pod
		}
	}
	return running, nil
}

// runs says whether agent and sidecar do.
func runs(pod *corev1.Pod) bool {
	for _, c := range pod.Status.ContainerStatuses {
		if c.State.Running == nil {
			return false
		}
	}
	return len(pod.Status.ContainerStatuses) == 2
}

// endTogether lets all agents end with 42 at once. What they answer may be cut off by their end.
func endTogether(lives []*life) {
	var all sync.WaitGroup
	for _, l := range lives {
		all.Go(func() { _, _ = l.call("POST", "exit", "code", "42", "file", "42") })
	}
	all.Wait()
}

// expectAllGone waits for the end of every agent.
func expectAllGone(lives []*life) {
	var all sync.WaitGroup
	for _, l := range lives {
		all.Go(l.expectGone)
	}
	all.Wait()
}

// small lets many agents fit on the node.
func small(d *appsv1.Deployment) {
	d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
	resources := &d.Spec.Template.Spec.Containers[0].Resources
	resources.Requests = resources.Limits.DeepCopy()
	resources.Requests["cpu"] = resource.MustParse("1m")
	resources.Requests["memory"] = resource.MustParse("8Mi")
}

func remaining(ctx context.Context, prefix string) (int, error) {
	list, err := client.AppsV1().Deployments(agentsNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		if strings.HasPrefix(list.Items[i].Name, prefix+"-") && list.Items[i].DeletionTimestamp == nil {
			n++
		}
	}
	return n, nil
}

// TestFleet: fifty agents that are idle at once are all gone, and only they.
func TestFleet(t *testing.T) {
	releaseBreaker(t)
	bystander := bear(t, "bystander")
	idle := fleet(t, "fleet", 50)
	endTogether(idle)
	expectAllGone(idle)
	bystander.expectKept()
}

// TestBreaker: a bad image that makes twice as many agents end at once as may does not erase them: the breaker opens, nobody
// else goes, and an operator can release it. Their sidecars go by the file, so that many at once have been there both ways.
func TestBreaker(t *testing.T) {
	releaseBreaker(t)
	const agents, burst = 40, 20
	useSidecar(t, byFile)
	setPolicy(t, `(?m)^ {4}burst: .*`, fmt.Sprintf("    burst: %d", burst))
	setPolicy(t, `(?m)^ {4}perMinute: .*`, "    perMinute: 1") // however long it takes them all to end
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	operator := kubectlAgents(t)
	t.Cleanup(func() { // the tests after this one need it closed
		if _, _, err := breaker.Release(context.WithoutCancel(t.Context()), maps, "e2e", time.Now()); err != nil {
			t.Error(err)
		}
	})
	if code, said := operator("breaker", "status"); code != 0 || !strings.HasPrefix(said, "closed") {
		t.Errorf("breaker status before: exit code %d: %s", code, said)
	}
	bad := fleet(t, "bad", agents)
	endTogether(bad)
	var state breaker.State
	eventually(t, lifeTimeout, func(ctx context.Context) (err error) {
		if state, err = breaker.Read(ctx, maps); err != nil || !state.Open {
			return fmt.Errorf("the breaker is closed: %+v, %w", state, err)
		}
		return nil
	})
	granted := 0
	for _, l := range bad {
		if slices.Contains(state.Counted, string(l.deployment.UID)) {
			granted++
		}
	}
	if granted < burst || granted == agents {
		t.Fatalf("%d of %d agents may go; %d may at once", granted, agents, burst)
	}
	t.Logf("%d of %d agents may go, then the breaker opened", granted, agents)
	eventually(t, lifeTimeout, func(ctx context.Context) error { // one whose answer was cut off asks again
		left, err := remaining(ctx, "bad")
		if err != nil || left != agents-granted {
			return fmt.Errorf("%d agents are left, want %d: %w", left, agents-granted, err)
		}
		return nil
	})
	time.Sleep(10 * time.Second)
	if left, err := remaining(t.Context(), "bad"); err != nil || left != agents-granted {
		t.Errorf("with an open breaker %d of %d agents went, %v", agents-granted-left, agents-granted, err)
	}
	if code, said := operator("breaker", "status"); code != 1 || !strings.HasPrefix(said, "open since") {
		t.Errorf("breaker status of an open one: exit code %d: %s", code, said)
	}
	if code, said := operator("breaker", "release"); code != 0 || !strings.HasPrefix(said, "released") {
		t.Fatalf("breaker release: exit code %d: %s", code, said)
	}
	if code, said := operator("breaker", "status"); code != 0 || !strings.HasPrefix(said, "closed; released by") {
		t.Errorf("breaker status after the release: exit code %d: %s", code, said)
	}
	expectAllGone(bad)
}

// TestStoppedByHand: an operator stops every deletion. An agent that runs then and goes idle waits for the release,
// and its sidecar says who has stopped it and why.
func TestStoppedByHand(t *testing.T) {
	releaseBreaker(t)
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	operator := kubectlAgents(t)
	t.Cleanup(func() { // the tests after this one need it closed
		if _, _, err := breaker.Release(context.WithoutCancel(t.Context()), maps, "e2e", time.Now()); err != nil {
			t.Error(err)
		}
	})
	idle := bear(t, "stopped")
	idle.awaitAge()
	const reason = "agents stop while they work"
	if code, said := operator("breaker", "open", "--reason", reason); code != 0 || !strings.HasPrefix(said, "opened by ") {
		t.Fatalf("breaker open: exit code %d: %s", code, said)
	}
	if code, said := operator("breaker"); code != 1 || !strings.Contains(said, reason) {
		t.Errorf("breaker: exit code %d: %s", code, said)
	}
	idle.leave42()
	idle.expectSidecarSays(reason)
	time.Sleep(10 * time.Second)
	if d, err := client.AppsV1().Deployments(agentsNamespace).Get(t.Context(), idle.name, metav1.GetOptions{}); err != nil || d.DeletionTimestamp != nil {
		t.Errorf("the agent went while every deletion was stopped: %v", err)
	}
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		list, err := client.CoreV1().Events(systemNamespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=BreakerOpened"})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(list.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, reason) }) {
			return fmt.Errorf("none of %d Events tells of the opening", len(list.Items))
		}
		return nil
	})
	if code, said := operator("breaker", "release"); code != 0 || !strings.HasPrefix(said, "released; it was open since ") {
		t.Fatalf("breaker release: exit code %d: %s", code, said)
	}
	idle.expectGone()
}
