package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// askTimeout is for one answer of a lifecycle manager, by way of the API server.
	askTimeout = 5 * time.Second

	// maxStatus bounds such an answer, in bytes: an agent can answer what it likes.
	maxStatus = 64 << 10
)

// look sees what an agent does now.
func (c *Cluster) look(ctx context.Context, d *appsv1.Deployment, idleFor time.Duration, now func() time.Time) (Seen, error) {
	pods, err := c.podsOf(ctx, d)
	if err != nil {
		return Seen{}, err
	}
	answers := map[string]said{}
	for i := range pods {
		if pod := &pods[i]; pod.Status.Phase == corev1.PodRunning {
			status, err := c.ask(ctx, pod)
			answers[pod.Name] = said{status, err}
		}
	}
	return seen(pods, answers, idleFor, now()), nil
}

// podsOf returns every Pod that the Deployment's selector matches, whoever it is controlled by: one too many is on the safe side.
func (c *Cluster) podsOf(ctx context.Context, d *appsv1.Deployment) ([]corev1.Pod, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of Deployment %q in namespace %q: %w", d.Name, d.Namespace, err)
	}
	if selector.Empty() {
		return nil, fmt.Errorf("selector of Deployment %q in namespace %q matches every Pod", d.Name, d.Namespace)
	}
	list, err := c.client.CoreV1().Pods(d.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("list the Pods of Deployment %q in namespace %q: %w", d.Name, d.Namespace, err)
	}
	return list.Items, nil
}

// ask reads the status of the lifecycle manager in a Pod, through the API server. It takes the right to get pods/proxy.
func (c *Cluster) ask(ctx context.Context, pod *corev1.Pod) (*idle.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	stream, err := c.client.CoreV1().RESTClient().Get().Namespace(pod.Namespace).Resource("pods").
		Name(fmt.Sprintf("%s:%d", pod.Name, lifecycle.ManagerPort)).SubResource("proxy").Suffix("v1/status").Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("no answer of its lifecycle manager on port %d: %w", lifecycle.ManagerPort, err)
	}
	defer stream.Close()
	data, err := io.ReadAll(io.LimitReader(stream, maxStatus))
	if err != nil {
		return nil, err
	}
	var status idle.Status
	if err := json.Unmarshal(data, &status); err != nil {
		return nil, fmt.Errorf("what answers on port %d is no lifecycle manager: %w", lifecycle.ManagerPort, err)
	}
	if status.State == "" || status.KeptAliveBy == nil {
		return nil, errors.New("its lifecycle manager does not say what keeps it alive")
	}
	return &status, nil
}
