//go:build e2e

package installation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/enforcement"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestUpgrade: who upgrades by kubectl, from the version before or from the first release, restarts no agent and loses no
// request. Agents that were there before are agents of the new version: they go when they are idle. New rules refuse none of
// their Pods; they hold for what is written after the upgrade.
func TestUpgrade(t *testing.T) {
	from := map[string]version{"previous": previous}
	if !slices.Equal(first.images, previous.images) {
		from["first"] = first
	}
	for name, v := range from {
		t.Run(name, func(t *testing.T) { testUpgrade(t, v) })
	}
}

// violator is an agent that the rule object-size refuses. It also has service links, as every agent of the first release.
const violator = "agent-large"

func testUpgrade(t *testing.T, from version) {
	clean(t)
	from.applyKustomization(t)
	violates := createViolator(t)
	startFleet(t)
	before := fleet(t)
	check := startTraffic(t)
	current.applyKustomization(t)
	check()
	expectUntouched(t, before)
	if violates {
		expectWarnedAbout(t)
	}

	// Once while new rules only warn, and once while they are in force.
	evictAll(t, before)
	enforceNewRules(t)
	before = fleet(t)
	evictAll(t, before)
	before = fleet(t)
	if violates {
		if err := changeTemplate(t, violator); err == nil || !strings.Contains(err.Error(), "object-size: ") {
			t.Errorf("the template of %s changes: %v, want a refusal by object-size", violator, err)
		}
	}
	expectUntouched(t, before)
	if err := changeTemplate(t, "agent-paid"); err != nil {
		t.Errorf("the template of an agent that violates nothing: %v", err)
	}
	d, err := client.AppsV1().Deployments(agentsNamespace).Get(t.Context(), "agent-paid", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if links := d.Spec.Template.Spec.EnableServiceLinks; links == nil || *links {
		t.Errorf("its enableServiceLinks is %v after that", links)
	}
	delete(before, agentsNamespace+"/agent-paid")

	endIdle(t, "agent-anonymous")
	expectGone(t, "agent-anonymous")
	delete(before, agentsNamespace+"/agent-anonymous")
	expectUntouched(t, before)
	if violates {
		thereAndBack(t, from)
	}
}

// thereAndBack goes back to a version that does not know the new rules, as docs/install.md says it, and forward again. No agent
// is restarted, and no request is lost.
func thereAndBack(t *testing.T, from version) {
	t.Helper()
	before := fleet(t)
	check := startTraffic(t)
	putPolicy(t, from.policy(t), "audited only: ")
	from.applyKustomization(t)
	check()
	expectUntouched(t, before)
	check = startTraffic(t)
	current.applyKustomization(t)
	check()
	expectUntouched(t, before)
}

// putPolicy writes a policy and waits until every server says the words of it in its readiness.
func putPolicy(t *testing.T, policy, said string) {
	t.Helper()
	config, err := client.CoreV1().ConfigMaps(systemNamespace).Get(t.Context(), lifecycle.PolicyConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config.Data[lifecycle.PolicyKey] = policy
	if _, err := client.CoreV1().ConfigMaps(systemNamespace).Update(t.Context(), config, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	selector := metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + serverName}
	eventually(t, func(ctx context.Context) error {
		pods, err := client.CoreV1().Pods(systemNamespace).List(ctx, selector)
		if err != nil {
			return err
		}
		// The kubelet looks after a Pod's volumes at once when the Pod changes, and else within two minutes.
		patch := fmt.Appendf(nil, `{"metadata": {"annotations": {"e2e/nudged": %q}}}`, time.Now().Format(time.RFC3339Nano))
		for i := range pods.Items {
			name := pods.Items[i].Name
			_, err := client.CoreV1().Pods(systemNamespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			if err != nil {
				return err
			}
			answer, err := client.CoreV1().Pods(systemNamespace).ProxyGet("http", name, "8080", "readyz", map[string]string{"verbose": ""}).DoRaw(ctx)
			if err != nil {
				return err
			}
			if !strings.Contains(string(answer), said) {
				return fmt.Errorf("server %s does not say %q:\n%s", name, said, answer)
			}
		}
		return nil
	})
}

// expectWarnedAbout: right after an upgrade an older server may have answered /mutate, so that new rules refuse nothing yet.
func expectWarnedAbout(t *testing.T) {
	t.Helper()
	record, err := client.CoreV1().ConfigMaps(systemNamespace).Get(t.Context(), enforcement.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if record.Data["warnUntil"] == "" {
		t.Errorf("the servers take the upgrade for a new installation: %v", record.Data)
	}
	_, err = client.AppsV1().Deployments(agentsNamespace).Create(t.Context(), newViolator("agent-try"),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		t.Errorf("a new rule refuses an agent while older servers may answer: %v", err)
	}
}

// newViolator returns an agent with one variable more than the rule object-size lets pass.
func newViolator(name string) *appsv1.Deployment {
	agent := newAgent(agentsNamespace, name, lifecycle.Free)
	container := &agent.Spec.Template.Spec.Containers[0]
	for i := range 1001 {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: "x"})
	}
	return agent
}

// createViolator returns false where the version that is installed has the rule already.
func createViolator(t *testing.T) bool {
	t.Helper()
	err := createAgent(t.Context(), newViolator(violator))
	switch {
	case err == nil:
		return true
	case strings.Contains(err.Error(), "object-size: "):
		return false
	}
	t.Fatal(err)
	return false
}

// evictAll takes every agent's Pod away, as the drain of its node does, and waits until each has another one that is ready.
func evictAll(t *testing.T, before map[string]life) {
	t.Helper()
	for _, namespace := range []string{agentsNamespace, roleNamespace} {
		pods, err := client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range pods.Items {
			eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pods.Items[i].Name}}
			err := client.CoreV1().Pods(namespace).EvictV1(t.Context(), eviction)
			if err != nil && !apierrors.IsNotFound(err) {
				t.Fatalf("evict Pod %s/%s: %v", namespace, pods.Items[i].Name, err)
			}
		}
	}
	eventually(t, func(ctx context.Context) error {
		now, err := readFleet(ctx)
		if err != nil {
			return err
		}
		for name, was := range before {
			if was.Pod != "" && (now[name].Pod == "" || now[name].Pod == was.Pod) {
				return fmt.Errorf("agent %s has no other Pod: it was %q and is %q", name, was.Pod, now[name].Pod)
			}
		}
		return nil
	})
	awaitRunning(t)
}

// enforceNewRules writes into the record that the rules are in force from now on, as an operator can who does not want to
// wait, and waits until the servers go by it.
func enforceNewRules(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		record, err := client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, enforcement.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if record.Data["revision"] == "" {
			return fmt.Errorf("no server has written the record: %v", record.Data)
		}
		now := time.Now().UTC()
		for key, value := range record.Data {
			if since, err := time.Parse(time.RFC3339, value); err == nil && strings.Contains(key, ".") && since.After(now) {
				record.Data[key] = now.Format(time.RFC3339)
			}
		}
		delete(record.Data, "warnUntil")
		delete(record.Data, "warnAboveRevision")
		_, err = client.CoreV1().ConfigMaps(systemNamespace).Update(ctx, record, metav1.UpdateOptions{})
		return err
	})
	// Each server reads the record twice a minute. Several refusals in a row come from all of them.
	eventually(t, func(ctx context.Context) error {
		for range 20 {
			_, err := client.AppsV1().Deployments(agentsNamespace).Create(ctx, newViolator("agent-try"),
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err == nil || !strings.Contains(err.Error(), "object-size: ") {
				return fmt.Errorf("a new agent that is too large is not refused for that: %w", err)
			}
		}
		return nil
	})
}

// changeTemplate changes an agent's template in a way that makes no difference to it.
func changeTemplate(t *testing.T, name string) error {
	t.Helper()
	patch := []byte(`{"spec":{"template":{"metadata":{"annotations":{"e2e/changed":"yes"}}}}}`)
	_, err := client.AppsV1().Deployments(agentsNamespace).Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	return err
}
