//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
)

// restart does what `kubectl rollout restart` does.
func restart(ctx context.Context, deployment string) error {
	patch := fmt.Appendf(nil, `{"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": %q}}}}}`,
		time.Now().Format(time.RFC3339Nano))
	_, err := client.AppsV1().Deployments(systemNamespace).Patch(ctx, deployment, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{FieldManager: "e2e"})
	return err
}

// serversRolledOut waits until the servers are the ones that the Deployment asks for, and no others are left.
func serversRolledOut(ctx context.Context) error { return rolledOut(ctx, serverName) }

// rolledOut waits until the Pods of a Deployment are the ones that it asks for, and no others are left.
func rolledOut(ctx context.Context, name string) error {
	var last string
	err := wait.PollUntilContextTimeout(ctx, pollInterval, rolloutTimeout, true, func(ctx context.Context) (bool, error) {
		deployment, err := client.AppsV1().Deployments(systemNamespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		pods, err := client.CoreV1().Pods(systemNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=" + name})
		if err != nil {
			return false, err
		}
		want, s := *deployment.Spec.Replicas, deployment.Status
		last = fmt.Sprintf("want %d replicas: %d updated, %d available, %d Pods",
			want, s.UpdatedReplicas, s.AvailableReplicas, len(pods.Items))
		return s.ObservedGeneration >= deployment.Generation && s.UpdatedReplicas == want && s.AvailableReplicas == want &&
			len(pods.Items) == int(want), nil
	})
	if err != nil {
		return fmt.Errorf("rollout of %s: %s: %w", name, last, err)
	}
	return nil
}

// servers are the server's Pods, those that are going included.
func servers(ctx context.Context) ([]corev1.Pod, error) {
	list, err := client.CoreV1().Pods(systemNamespace).List(ctx, metav1.ListOptions{LabelSelector: serverSelector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// scaleServers changes the number of servers and waits until there are so many.
func scaleServers(ctx context.Context, replicas int32) error {
	patch := fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, replicas)
	_, err := client.AppsV1().Deployments(systemNamespace).Patch(ctx, serverName, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return err
	}
	return serversRolledOut(ctx)
}

// serverReplicas is how many servers are installed.
func serverReplicas(t *testing.T) int32 {
	t.Helper()
	deployment, err := client.AppsV1().Deployments(systemNamespace).Get(t.Context(), serverName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return *deployment.Spec.Replicas
}

// ask sends a request to a server's health port, by way of the API server.
func ask(ctx context.Context, server, path, query string) (string, error) {
	request := client.CoreV1().RESTClient().Get().Namespace(systemNamespace).Resource("pods").Name(server + ":8080").
		SubResource("proxy").Suffix(path)
	if query != "" {
		request = request.Param(query, "true")
	}
	body, err := request.DoRaw(ctx)
	return string(body), err
}

// metric reads a metric without labels of one server.
func metric(ctx context.Context, server, name string) (float64, error) {
	body, err := ask(ctx, server, "metrics", "")
	if err != nil {
		return 0, err
	}
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		return 0, fmt.Errorf("server %s has no metric %s", server, name)
	}
	return strconv.ParseFloat(found[1], 64)
}

// eventually polls until a condition holds; the error it returns meanwhile is what the test fails with in the end.
func eventually(t *testing.T, timeout time.Duration, condition func(context.Context) error) {
	t.Helper()
	poll(t, pollInterval, timeout, condition)
}

// poll is eventually where the moment matters. It works in a cleanup too.
func poll(t *testing.T, interval, timeout time.Duration, condition func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(context.WithoutCancel(t.Context()), interval, timeout, true, func(ctx context.Context) (bool, error) {
		err := condition(ctx)
		if ctx.Err() == nil || last == nil { // what was cut off by the end tells nothing
			last = err
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatalf("after %s: %v", timeout, last)
	}
}
