package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// sighting is when this process was told what became of an agent.
type sighting struct {
	proof    time.Time // the Pod's status says 42
	accepted time.Time // the Deployment goes, or has gone
	gone     time.Time // the last object has gone

	objects map[string]bool // which are there, as kind/name
}

// watcher keeps the sightings of all agents, by the Deployment's name.
type watcher struct {
	client kubernetes.Interface

	mu     sync.Mutex
	agents map[string]*sighting
	broken error
}

// watchAgents begins to watch what agents are made of.
func watchAgents(ctx context.Context, client kubernetes.Interface) (*watcher, error) {
	w := &watcher{client: client, agents: map[string]*sighting{}}
	options := metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment}
	apps, core := client.AppsV1(), client.CoreV1()
	for kind, begin := range map[string]func(context.Context, metav1.ListOptions) (watch.Interface, error){
		"Deployment":            apps.Deployments(namespace).Watch,
		"ReplicaSet":            apps.ReplicaSets(namespace).Watch,
		"Pod":                   core.Pods(namespace).Watch,
		"PersistentVolumeClaim": core.PersistentVolumeClaims(namespace).Watch,
	} {
		events, err := begin(ctx, options)
		if err != nil {
			return nil, err
		}
		go func() {
			defer events.Stop()
			for event := range events.ResultChan() {
				w.see(kind, event, time.Now())
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.broken = fmt.Errorf("the watch of %ss has ended", kind)
		}()
	}
	return w, nil
}

func (w *watcher) see(kind string, event watch.Event, now time.Time) {
	object, err := meta.Accessor(event.Object)
	if err != nil { // a status in place of an object: the watch ends after it
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := object.GetLabels()[lifecycle.LabelDeployment]
	s := w.agents[name]
	if s == nil {
		s = &sighting{objects: map[string]bool{}}
		w.agents[name] = s
	}
	deleted := event.Type == watch.Deleted
	if kind == "Deployment" && s.accepted.IsZero() && (deleted || object.GetDeletionTimestamp() != nil) {
		s.accepted = now
	}
	if s.proof.IsZero() && saysIdle(event.Object) {
		s.proof = now
	}
	if !deleted {
		s.objects[kind+"/"+object.GetName()] = true
		return
	}
	delete(s.objects, kind+"/"+object.GetName())
	if len(s.objects) == 0 {
		s.gone = now
	}
}

// saysIdle tells whether the object is a Pod whose agent is reported to have ended with 42.
func saysIdle(object runtime.Object) bool {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return false
	}
	for i := range pod.Status.ContainerStatuses {
		c := &pod.Status.ContainerStatuses[i]
		if c.Name == lifecycle.AgentContainer && c.State.Terminated != nil && c.State.Terminated.ExitCode == lifecycle.ExitIdle {
			return true
		}
	}
	return false
}

// gone waits until nothing of an agent is left, and returns when that was.
func (w *watcher) gone(ctx context.Context, name string) (sighting, error) {
	for {
		w.mu.Lock()
		s, broken := *w.agents[name], w.broken
		left := len(s.objects)
		w.mu.Unlock()
		switch {
		case broken != nil:
			return s, broken
		case left == 0 && (s.proof.IsZero() || s.accepted.IsZero()):
			return s, fmt.Errorf("agent %s went without a proof", name)
		case left == 0:
			return s, nil
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return s, fmt.Errorf("%d objects of agent %s are left: %w", left, name, err)
		}
	}
}
