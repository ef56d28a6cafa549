//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// kept are the tests that have left their evidence.
var kept sync.Map

// keepEvidence leaves behind what there is to see when the test has failed, once. It is for defer, which comes before the
// test's cleanup takes that away.
func keepEvidence(t *testing.T) {
	t.Helper()
	if !t.Failed() {
		return
	}
	if _, before := kept.LoadOrStore(t.Name(), true); !before {
		t.Logf("logs, events and objects are in %s", collect(context.WithoutCancel(t.Context()), t.Name()))
	}
}

// collect writes the logs of the servers and the agents, the events and the objects of their namespaces to files and returns their directory.
// What cannot be had is an error message in its place: it must not hide why the test failed.
func collect(ctx context.Context, name string) string {
	dir, err := artifactsDir(strings.ReplaceAll(name, "/", "_"))
	if err != nil {
		return err.Error()
	}
	write := func(file string, content []byte, err error) {
		if err != nil {
			content = []byte(err.Error() + "\n")
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
	}
	writeYAML := func(file string, object any, err error) {
		var content []byte
		if err == nil {
			content, err = yaml.Marshal(object)
		}
		write(file+".yaml", content, err)
	}

	all := metav1.ListOptions{}
	namespaces := []string{systemNamespace, agentsNamespace}
	roles, err := client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelAgentRole})
	writeYAML("namespaces", roles, err)
	if err == nil {
		for i := range roles.Items {
			namespaces = append(namespaces, roles.Items[i].Name)
		}
	}
	for _, namespace := range namespaces {
		pods, err := client.CoreV1().Pods(namespace).List(ctx, all)
		if err != nil {
			write(namespace+"-logs", nil, err)
			continue
		}
		for i := range pods.Items {
			for _, c := range pods.Items[i].Spec.Containers {
				for _, previous := range []bool{false, true} {
					options := &corev1.PodLogOptions{Container: c.Name, Previous: previous}
					log, err := client.CoreV1().Pods(namespace).GetLogs(pods.Items[i].Name, options).DoRaw(ctx)
					if previous && err != nil {
						continue // most never had one
					}
					write(fmt.Sprintf("%s-%s-previous-%t.log", pods.Items[i].Name, c.Name, previous), log, err)
				}
			}
		}
	}
	for _, namespace := range namespaces {
		events, err := client.CoreV1().Events(namespace).List(ctx, all)
		writeYAML(namespace+"-events", events, err)
		deployments, err := client.AppsV1().Deployments(namespace).List(ctx, all)
		writeYAML(namespace+"-deployments", deployments, err)
		replicaSets, err := client.AppsV1().ReplicaSets(namespace).List(ctx, all)
		writeYAML(namespace+"-replicasets", replicaSets, err)
		pods, err := client.CoreV1().Pods(namespace).List(ctx, all)
		writeYAML(namespace+"-pods", pods, err)
		configs, err := client.CoreV1().ConfigMaps(namespace).List(ctx, all)
		writeYAML(namespace+"-configmaps", configs, err)
	}
	mutating, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, registration, metav1.GetOptions{})
	writeYAML("mutating", mutating, err)
	validating, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, registration, metav1.GetOptions{})
	writeYAML("validating", validating, err)
	return dir
}

func artifactsDir(name string) (string, error) {
	root := os.Getenv("E2E_ARTIFACTS")
	if root == "" {
		return os.MkdirTemp("", "agent-lifecycle-e2e-"+name+"-")
	}
	dir := filepath.Join(root, name)
	return dir, os.MkdirAll(dir, 0o700)
}
