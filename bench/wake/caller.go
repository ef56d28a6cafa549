package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

const (
	// callerNamespace and callerAccount are whom the gateway of the end-to-end tests allows.
	callerNamespace, callerAccount = "web", "frontend"

	gatewayURL = "http://agent-gateway.dexorder-system.svc"

	// patience is for a Pod to come up, or an agent to go.
	patience = 2 * time.Minute
)

// caller is a Pod that calls the gateway.
type caller struct {
	client kubernetes.Interface
	pod    string
}

// startCaller returns one that must be removed, beside an error too.
func startCaller(ctx context.Context, client kubernetes.Interface, image string) (*caller, error) {
	c := &caller{client: client}
	core := client.CoreV1()
	_, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: callerNamespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return c, err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: callerAccount}}
	if _, err := core.ServiceAccounts(callerNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return c, err
	}
	pod, err := core.Pods(callerNamespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "bench-wake-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: callerAccount,
			Containers: []corev1.Container{{
				Name: "caller", Image: image, VolumeMounts: []corev1.VolumeMount{{Name: "gateway", MountPath: "/var/run/secrets/gateway"}},
			}},
			Volumes: []corev1.Volume{{Name: "gateway", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "agent-gateway", Path: "token"}}},
			}}}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return c, err
	}
	c.pod = pod.Name
	err = wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		_, err := c.get(ctx, "healthz", nil)
		return err == nil, nil
	})
	if err != nil {
		return c, fmt.Errorf("the caller %s does not come up: %w", c.pod, err)
	}
	return c, nil
}

func (c *caller) remove() {
	if c.pod == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = c.client.CoreV1().Pods(callerNamespace).Delete(ctx, c.pod, metav1.DeleteOptions{})
}

// get asks the caller itself.
func (c *caller) get(ctx context.Context, path string, params map[string]string) ([]byte, error) {
	return c.send(ctx, "GET", path, params, nil)
}

func (c *caller) send(ctx context.Context, verb, path string, params map[string]string, body []byte) ([]byte, error) {
	request := c.client.CoreV1().RESTClient().Verb(verb).Namespace(callerNamespace).Resource("pods").Name(c.pod + ":8080").
		SubResource("proxy").Suffix(path).Body(body)
	for name, value := range params {
		request = request.Param(name, value)
	}
	answer, err := request.DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, answer)
	}
	return answer, nil
}

// measured is one request: its status code, when it began in Unix nanoseconds, and how many it took until the answer's end.
type measured struct {
	Code        int
	Began, Took int64
}

// measure has the caller get an URL n times, one after another.
func (c *caller) measure(ctx context.Context, url string, n int, fresh bool) ([]measured, error) {
	answer, err := c.get(ctx, "measure", map[string]string{"url": url, "n": strconv.Itoa(n), "fresh": strconv.FormatBool(fresh)})
	if err != nil {
		return nil, err
	}
	var all []measured
	if err := json.Unmarshal(answer, &all); err != nil {
		return nil, err
	}
	for _, m := range all {
		if m.Code != 200 {
			return nil, fmt.Errorf("GET %s is answered with %d", url, m.Code)
		}
	}
	return all, nil
}
