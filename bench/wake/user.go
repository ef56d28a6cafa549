package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dexorder/agent-lifecycle/gateway"
)

const namespace = "dexorder-agents"

// user is somebody whose agent is woken. Its type never goes by itself, and keeps its storage.
type user struct {
	caller   *caller
	watcher  *watcher
	id, name string
	pod      *corev1.Pod
}

func newUser(c *caller, w *watcher, i int) *user {
	id := fmt.Sprintf("bench-wake-%d@example.com", i)
	return &user{caller: c, watcher: w, id: id, name: gateway.Name(id)}
}

func (u *user) url(rest string) string {
	return gatewayURL + "/v1/agents/" + url.PathEscape(u.id) + rest
}

// direct is the agent without a gateway.
func (u *user) direct() string { return "http://" + u.pod.Status.PodIP + ":3000/healthz" }

// make has the gateway make the agent, and waits for it.
func (u *user) make(ctx context.Context) error {
	body := []byte(`{"userType": "enterprise"}`)
	if _, err := u.caller.send(ctx, "PUT", "call", map[string]string{"url": u.url("")}, body); err != nil {
		return fmt.Errorf("PUT of %s: %w", u.id, err)
	}
	if _, err := u.caller.measure(ctx, u.url("/connect/healthz"), 1, false); err != nil {
		return err
	}
	s, err := u.watcher.awaitReady(ctx, u.name)
	if err != nil {
		return err
	}
	u.pod = s.pod
	return nil
}

// leave takes the agent away as its sidecar would, and returns when all of it but the claim has gone.
func (u *user) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	deployments := u.caller.client.AppsV1().Deployments(namespace)
	return wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		d, err := deployments.Get(ctx, u.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			return true, nil
		case err != nil || d.DeletionTimestamp != nil:
			return false, err
		}
		err = deployments.Delete(ctx, u.name, metav1.DeleteOptions{
			PropagationPolicy: new(metav1.DeletePropagationForeground),
			Preconditions:     &metav1.Preconditions{UID: &d.UID, ResourceVersion: &d.ResourceVersion},
		})
		if apierrors.IsConflict(err) { // a controller has just written its status
			err = nil
		}
		return false, err
	})
}

// wake is one: when each thing happened, at most a little before the watches brought it.
type wake struct {
	asked    time.Time // the caller, right before
	made     time.Time // the Deployment is there
	pod      time.Time // the Pod is there
	runs     time.Time // the agent's container runs
	ready    time.Time // the Pod is ready
	answered time.Time // the caller has the answer
}

// wake connects to the agent that has gone.
func (u *user) wake(ctx context.Context) (wake, error) {
	u.watcher.forget(u.name)
	m, err := u.caller.measure(ctx, u.url("/connect/healthz"), 1, true)
	if err != nil {
		return wake{}, err
	}
	s, err := u.watcher.awaitReady(ctx, u.name)
	if err != nil {
		return wake{}, err
	}
	asked := time.Unix(0, m[0].Began)
	return wake{asked, s.made, s.appeared, s.runs, s.ready, asked.Add(time.Duration(m[0].Took))}, nil
}

func (u *user) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := u.caller.client
	err := errors.Join(
		client.AppsV1().Deployments(namespace).Delete(ctx, u.name, metav1.DeleteOptions{}),
		client.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, u.name+"-data", metav1.DeleteOptions{}))
	if err != nil && !apierrors.IsNotFound(err) {
		fmt.Fprintln(os.Stderr, "wake: is left behind:", u.name, err)
	}
}
