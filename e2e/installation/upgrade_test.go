//go:build e2e

package installation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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
}

// createViolator returns false where the version that is installed has the rule already.
func createViolator(t *testing.T) bool {
	t.Helper()
	agent := newAgent(agentsNamespace, violator, lifecycle.Free)
	container := &agent.Spec.Template.Spec.Containers[0]
	for i := range 1001 {
		container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: "x"})
	}
	err := createAgent(t.Context(), agent)
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
			agent := newAgent(agentsNamespace, "agent-try", lifecycle.Free)
			container := &agent.Spec.Template.Spec.Containers[0]
			for i := range 1001 {
				container.Env = append(container.Env, corev1.EnvVar{Name: fmt.Sprintf("V%d", i), Value: "x"})
			}
			_, err := client.AppsV1().Deployments(agentsNamespace).Create(ctx, agent, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if err == nil || !strings.Contains(err.Error(), "object-size: ") {
				return fmt.Errorf("a new agent that is too large is not refused for that: %v", err)
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
