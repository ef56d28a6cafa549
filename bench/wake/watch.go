package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// sighting is when this process was told of an agent's steps, the first time for each.
type sighting struct {
	made, appeared, runs, ready time.Time
	pod                         *corev1.Pod
}

// watcher keeps the sightings of all agents, by name.
type watcher struct {
	mu     sync.Mutex
	agents map[string]*sighting
}

// watchAgents begins to watch Deployments and Pods.
func watchAgents(ctx context.Context, client kubernetes.Interface) (*watcher, error) {
	w := &watcher{agents: map[string]*sighting{}}
	options := metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment}
	for _, begin := range []func(context.Context, metav1.ListOptions) (watch.Interface, error){
		client.AppsV1().Deployments(namespace).Watch, client.CoreV1().Pods(namespace).Watch,
	} {
		events, err := begin(ctx, options)
		if err != nil {
			return nil, err
		}
		go func() {
			defer events.Stop()
			for event := range events.ResultChan() {
				w.see(event, time.Now())
			}
		}()
	}
	return w, nil
}

func (w *watcher) see(event watch.Event, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch o := event.Object.(type) {
	case *appsv1.Deployment:
		if event.Type == watch.Added {
			first(&w.of(o.Name).made, now)
		}
	case *corev1.Pod:
		if event.Type == watch.Deleted || o.DeletionTimestamp != nil {
			return
		}
		s := w.of(o.Labels[lifecycle.LabelDeployment])
		first(&s.appeared, now)
		for _, c := range o.Status.ContainerStatuses {
			if c.Name == lifecycle.AgentContainer && c.State.Running != nil {
				first(&s.runs, now)
			}
		}
		for _, c := range o.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				first(&s.ready, now)
				s.pod = o
			}
		}
	}
}

func first(t *time.Time, now time.Time) {
	if t.IsZero() {
		*t = now
	}
}

func (w *watcher) of(name string) *sighting {
	if w.agents[name] == nil {
		w.agents[name] = &sighting{}
	}
	return w.agents[name]
}

func (w *watcher) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.agents, name)
}

// awaitReady returns what was seen of an agent, once it is ready.
func (w *watcher) awaitReady(ctx context.Context, name string) (sighting, error) {
	var s sighting
	err := wait.PollUntilContextTimeout(ctx, 10*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		s = *w.of(name)
		return s.pod != nil, nil
	})
	if err != nil {
		return s, fmt.Errorf("agent %s was not seen to be ready; has a watch ended? %w", name, err)
	}
	return s, nil
}
