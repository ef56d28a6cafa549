package gateway

import (
	"context"
	"errors"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

// byAgent indexes Pods by the agent's name.
const byAgent = "agent"

// fleet is what the API server's watches tell of all agents, and what they say of themselves. Whoever waits for something is woken
// whenever anything about an agent changes, and looks for himself: nothing is lost by being late, and nothing piles up.
type fleet struct {
	factory     informers.SharedInformerFactory
	deployments appslisters.DeploymentNamespaceLister
	pods        cache.Indexer
	synced      []cache.InformerSynced

	// onPod hears of every Pod that appeared or changed, and of every one that went.
	onPod func(pod *corev1.Pod, gone bool)

	mu        sync.Mutex
	listeners map[string]map[chan struct{}]struct{}
	said      map[types.UID]heard // by Pod
}

func newFleet(client kubernetes.Interface, namespace string, onPod func(*corev1.Pod, bool)) (*fleet, error) {
	f := &fleet{onPod: onPod, listeners: map[string]map[chan struct{}]struct{}{}, said: map[types.UID]heard{}}
	f.factory = informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
		informers.WithTransform(slim), informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = lifecycle.LabelDeployment }))
	deployments, pods := f.factory.Apps().V1().Deployments(), f.factory.Core().V1().Pods()
	f.deployments, f.pods = deployments.Lister().Deployments(namespace), pods.Informer().GetIndexer()
	err := pods.Informer().AddIndexers(cache.Indexers{byAgent: func(o any) ([]string, error) {
		return []string{o.(*corev1.Pod).Labels[lifecycle.LabelDeployment]}, nil
	}})
	if err != nil {
		return nil, err
	}
	onDeployment, err := deployments.Informer().AddEventHandler(handler(func(o any, _ bool) { f.notify(o.(*appsv1.Deployment).Name) }))
	if err != nil {
		return nil, err
	}
	onPods, err := pods.Informer().AddEventHandler(handler(func(o any, gone bool) {
		pod := o.(*corev1.Pod)
		f.onPod(pod, gone)
		f.notify(pod.Labels[lifecycle.LabelDeployment])
	}))
	f.synced = []cache.InformerSynced{onDeployment.HasSynced, onPods.HasSynced}
	return f, err
}

func handler(changed func(o any, gone bool)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { changed(o, false) },
		UpdateFunc: func(_, o any) { changed(o, false) },
		DeleteFunc: func(o any) {
			if missed, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = missed.Obj
			}
			changed(o, true)
		},
	}
}

// slim drops what nobody here looks at, and that is most of a Pod.
func slim(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		if _, is := o.(*appsv1.Deployment); is {
			m.SetManagedFields(workload.IdentifyingManagers(m.GetManagedFields()))
		} else {
			m.SetManagedFields(nil)
		}
	}
	switch o := o.(type) {
	case *corev1.Pod:
		o.Spec = corev1.PodSpec{Containers: workload.IdentifyingContainers(o.Spec.Containers)}
	case *appsv1.Deployment:
		o.Spec = appsv1.DeploymentSpec{Replicas: o.Spec.Replicas, Paused: o.Spec.Paused}
	}
	return o, nil
}

// run watches until ctx ends.
func (f *fleet) run(ctx context.Context) {
	f.factory.Start(ctx.Done())
	<-ctx.Done()
	f.factory.Shutdown()
}

// ready returns an error until everything has been seen once.
func (f *fleet) ready() error {
	for _, synced := range f.synced {
		if !synced() {
			return errors.New("the agents are not known yet")
		}
	}
	return nil
}

// look returns what is known of an agent: its Status, and the Pod that serves it or is to. The Pod is nil where there is none.
func (f *fleet) look(name string) (Status, *corev1.Pod) {
	d, err := f.deployments.Get(name)
	if err != nil {
		d = nil // a lister knows no other error than that there is none
	}
	pod := f.podOf(name)
	var said saying
	if pod != nil {
		said = f.saidBy(pod)
	}
	s := statusOf(d, pod, said)
	s.Deployment = name
	return s, pod
}

// podOf returns the Pod of an agent, the first by workload.PodBefore of several.
func (f *fleet) podOf(name string) *corev1.Pod {
	found, err := f.pods.ByIndex(byAgent, name)
	if err != nil {
		return nil // the index is there
	}
	var best *corev1.Pod
	for _, o := range found {
		pod := o.(*corev1.Pod)
		if best == nil || workload.PodBefore(pod, best) {
			best = pod
		}
	}
	return best
}

// count counts agents by state.
func (f *fleet) count() map[lifecycle.State]int {
	counts := map[lifecycle.State]int{}
	list, err := f.deployments.List(labels.Everything())
	if err != nil {
		return counts
	}
	for _, d := range list {
		s, _ := f.look(d.Name)
		counts[s.State]++
	}
	return counts
}

// heard is what an agent says of itself, who heard it, and how often the kubelet had started the agent again by then.
type heard struct {
	saying
	by       *stream
	restarts int32
}

// say remembers what the agent in a Pod says of itself.
func (f *fleet) say(pod *corev1.Pod, s saying, by *stream) {
	now := f.current(pod)
	if now == nil {
		return
	}
	f.mu.Lock()
	f.said[pod.UID] = heard{s, by, restarts(now)}
	f.mu.Unlock()
	f.notify(pod.Labels[lifecycle.LabelDeployment])
}

// saidBy returns what the agent in a Pod says of itself. That it is stopping is its last word, until it is started again.
func (f *fleet) saidBy(pod *corev1.Pod) saying {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := f.said[pod.UID]
	if h.state == lifecycle.Shutdown && restarts(pod) > h.restarts {
		return saying{}
	}
	return h.saying
}

// hush forgets what somebody heard, unless somebody else has heard something since. That an agent is stopping is remembered: it says no
// more, and it takes a while until the kubelet says that it has stopped.
func (f *fleet) hush(pod *corev1.Pod, by *stream) {
	f.mu.Lock()
	if h := f.said[pod.UID]; h.by == by && h.state != lifecycle.Shutdown {
		delete(f.said, pod.UID)
	}
	f.mu.Unlock()
	f.notify(pod.Labels[lifecycle.LabelDeployment])
}

// hears says whether the agent in a Pod has said something on a stream that stands.
func (f *fleet) hears(pod *corev1.Pod) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, has := f.said[pod.UID]
	return has && h.state != lifecycle.Shutdown
}

// forget forgets what was said in a Pod that has gone.
func (f *fleet) forget(pod *corev1.Pod) {
	f.mu.Lock()
	delete(f.said, pod.UID)
	f.mu.Unlock()
}

// current returns a Pod as it is known now; nil if it has gone.
func (f *fleet) current(pod *corev1.Pod) *corev1.Pod {
	o, has, err := f.pods.GetByKey(pod.Namespace + "/" + pod.Name)
	if err != nil || !has || o.(*corev1.Pod).UID != pod.UID {
		return nil
	}
	return o.(*corev1.Pod)
}

// listen returns a channel that gets something whenever an agent may have changed, and a function that ends it.
func (f *fleet) listen(name string) (changed <-chan struct{}, cancel func()) {
	c := make(chan struct{}, 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners[name] == nil {
		f.listeners[name] = map[chan struct{}]struct{}{}
	}
	f.listeners[name][c] = struct{}{}
	return c, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.listeners[name], c)
		if len(f.listeners[name]) == 0 {
			delete(f.listeners, name)
		}
	}
}

func (f *fleet) notify(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.listeners[name] {
		select {
		case c <- struct{}{}:
		default: // it has yet to look anyway
		}
	}
}
