package main

import (
	"context"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// podsEach is how many Pods a namespace of a fleet has.
const podsEach = 5

// fillers is how many goroutines write.
const fillers = 16

// fill calls add for the numbers from until to, and says how far it is.
func fill(ctx context.Context, what string, from, to int, add func(context.Context, int) error) error {
	began := time.Now()
	var done atomic.Int64
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-watching.Done():
				return
			case <-tick.C:
				progress("%s: %d of %d", what, from+int(done.Load()), to)
			}
		}
	}()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillers)
	for n := from; n < to && ctx.Err() == nil; n++ {
		group.Go(func() error {
			defer done.Add(1)
			return add(ctx, n)
		})
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	progress("%s: %d, made in %s", what, to, time.Since(began).Round(time.Second))
	return nil
}

func roleNamespace(name string, annotations map[string]string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:        name,
		Labels:      map[string]string{lifecycle.LabelAgentRole: name, lifecycle.LabelOrg: org, lifecycle.LabelEnvironment: "bench"},
		Annotations: annotations,
	}}
}

// fillFleet makes a fleet larger: the first few namespaces by asking the API server, the others as copies of them.
func (c *cluster) fillFleet(ctx context.Context, from, to int) error {
	what := fmt.Sprintf("namespaces with a Deployment and %d Pods", podsEach)
	if from < models {
		if err := fill(ctx, what, from, min(to, models), c.addToFleet); err != nil {
			return err
		}
	}
	var of [models]*model
	for i := range of {
		var err error
		if of[i], err = c.modelOf(ctx, numbered("agent-fleet-", i)); err != nil {
			return err
		}
	}
	return fill(ctx, what, max(from, models), to, func(ctx context.Context, n int) error {
		return c.copyOf(ctx, of[n%models], numbered("agent-fleet-", n))
	})
}

// addToFleet makes the n-th namespace of a fleet, with a Deployment and Pods. In three of four namespaces they run; in the others they
// ran, and nothing wants to.
func (c *cluster) addToFleet(ctx context.Context, n int) error {
	name := numbered("agent-fleet-", n)
	// Unix seconds are what the shell loop understands. What lies before the namespace's creation means nothing to ours.
	activity := map[string]string{lifecycle.AnnotationLastPodActivity: strconv.FormatInt(time.Now().Unix()+1, 10)}
	if _, err := c.admin.CoreV1().Namespaces().Create(ctx, roleNamespace(name, activity), metav1.CreateOptions{}); err != nil {
		return err
	}
	d, err := bench.Deployment("worker")
	if err != nil {
		return err
	}
	runs := n%models != 3
	d.Namespace, d.Spec.Replicas = name, new(int32)
	d.Labels[lifecycle.LabelDeployment], d.Spec.Template.Labels[lifecycle.LabelDeployment] = d.Name, d.Name // as the webhook does
	if runs {
		*d.Spec.Replicas = 1
	}
	if _, err := c.admin.AppsV1().Deployments(name).Create(ctx, d, metav1.CreateOptions{}); err != nil {
		return err
	}
	for i := range podsEach {
		if err := c.addPod(ctx, name, numbered("worker-", i), d, runs); err != nil {
			return err
		}
	}
	return nil
}

// addPod makes a Pod and gives it a status as the kubelet does.
func (c *cluster) addPod(ctx context.Context, namespace, name string, d *appsv1.Deployment, runs bool) error {
	pod := &corev1.Pod{ObjectMeta: d.Spec.Template.ObjectMeta, Spec: d.Spec.Template.Spec}
	pod.Name = name
	pod, err := c.admin.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	now := metav1.NewTime(time.Now().Add(-48 * time.Hour))
	pod.Status.Phase, pod.Status.StartTime, pod.Status.PodIP = corev1.PodRunning, &now, "10.0.0.1"
	ready, state := corev1.ConditionTrue, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}}
	if !runs {
		pod.Status.Phase, ready = corev1.PodSucceeded, corev1.ConditionFalse
		state = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: now, FinishedAt: now}}
	}
	pod.Status.Conditions = nil
	for _, t := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: t, Status: ready, LastTransitionTime: now})
	}
	for i := range pod.Spec.Containers {
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: pod.Spec.Containers[i].Name, Image: pod.Spec.Containers[i].Image, Ready: runs, State: state,
			ImageID: "example.org/agent@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		})
	}
	_, err = c.admin.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}
