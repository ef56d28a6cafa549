package reaper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
)

// kind is a kind of object that the inventory holds.
type kind struct {
	resource string
	client   func(kubernetes.Interface) rest.Interface
	example  runtime.Object
	list     func() runtime.Object

	// workload says that it makes Pods. Name is its kind, by which records of workloads are told apart.
	workload bool
	name     string
}

func core(c kubernetes.Interface) rest.Interface  { return c.CoreV1().RESTClient() }
func apps(c kubernetes.Interface) rest.Interface  { return c.AppsV1().RESTClient() }
func batch(c kubernetes.Interface) rest.Interface { return c.BatchV1().RESTClient() }

func autoscaling(c kubernetes.Interface) rest.Interface { return c.AutoscalingV2().RESTClient() }

// kinds lists all that is watched: Namespaces first, and Pods before what makes them.
func kinds() []kind {
	return []kind{
		{"namespaces", core, &corev1.Namespace{}, func() runtime.Object { return &corev1.NamespaceList{} }, false, "Namespace"},
		{"pods", core, &corev1.Pod{}, func() runtime.Object { return &corev1.PodList{} }, false, "Pod"},
		{"persistentvolumeclaims", core, &corev1.PersistentVolumeClaim{}, func() runtime.Object { return &corev1.PersistentVolumeClaimList{} }, false, "PersistentVolumeClaim"},
		{"services", core, &corev1.Service{}, func() runtime.Object { return &corev1.ServiceList{} }, false, "Service"},
		{"horizontalpodautoscalers", autoscaling, &autoscalingv2.HorizontalPodAutoscaler{}, func() runtime.Object { return &autoscalingv2.HorizontalPodAutoscalerList{} }, false, "HorizontalPodAutoscaler"},
		{"deployments", apps, &appsv1.Deployment{}, func() runtime.Object { return &appsv1.DeploymentList{} }, true, "Deployment"},
		{"replicasets", apps, &appsv1.ReplicaSet{}, func() runtime.Object { return &appsv1.ReplicaSetList{} }, true, "ReplicaSet"},
		{"statefulsets", apps, &appsv1.StatefulSet{}, func() runtime.Object { return &appsv1.StatefulSetList{} }, true, "StatefulSet"},
		{"daemonsets", apps, &appsv1.DaemonSet{}, func() runtime.Object { return &appsv1.DaemonSetList{} }, true, "DaemonSet"},
		{"replicationcontrollers", core, &corev1.ReplicationController{}, func() runtime.Object { return &corev1.ReplicationControllerList{} }, true, "ReplicationController"},
		{"jobs", batch, &batchv1.Job{}, func() runtime.Object { return &batchv1.JobList{} }, true, "Job"},
		{"cronjobs", batch, &batchv1.CronJob{}, func() runtime.Object { return &batchv1.CronJobList{} }, true, "CronJob"},
	}
}

// holds says whether a record is of the kind.
func (k *kind) holds(r record) bool {
	switch r := r.(type) {
	case *namespace:
		return k.name == "Namespace"
	case *pod:
		return k.name == "Pod"
	case *claim:
		return k.name == "PersistentVolumeClaim"
	case *service:
		return k.name == "Service"
	case *scaler:
		return k.name == "HorizontalPodAutoscaler"
	case *workload:
		return k.name == r.kind
	}
	return false
}

// pageSize is how many objects are asked for at once.
const pageSize = 500

// live lists the objects of a kind in a namespace as the API server has them now.
func (k *kind) live(ctx context.Context, c kubernetes.Interface, namespace string) ([]record, error) {
	var records []record
	err := k.liveObjects(ctx, c, namespace, func(o runtime.Object) error {
		r := recordOf(o)
		if r == nil {
			return fmt.Errorf("%T is no %s", o, k.name)
		}
		records = append(records, r)
		return nil
	})
	return records, err
}

// liveObjects calls f with each object of a kind in a namespace, or in all if that is empty, page by page. A list
// that fails, or is cut off, is an error and never a short list.
func (k *kind) liveObjects(ctx context.Context, c kubernetes.Interface, namespace string, f func(runtime.Object) error) error {
	list := pager.New(func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
		page := k.list()
		err := k.client(c).Get().Namespace(namespace).Resource(k.resource).VersionedParams(&opts, scheme.ParameterCodec).Do(ctx).Into(page)
		if err == nil {
			err = whole(page)
		}
		return page, err
	})
	list.PageSize = pageSize
	if err := list.EachListItem(ctx, metav1.ListOptions{}, f); err != nil {
		if namespace == "" {
			return fmt.Errorf("list %s: %w", k.resource, err)
		}
		return fmt.Errorf("list %s in %s: %w", k.resource, namespace, err)
	}
	return nil
}

// whole is an error where an answer is no list: what is cut off in the wrong place, between two fields, reads as a list of nothing. The
// API server gives every list a resourceVersion.
func whole(page runtime.Object) error {
	list, err := apimeta.ListAccessor(page)
	if err != nil {
		return err
	}
	if list.GetResourceVersion() == "" {
		return errors.New("the answer has been cut off: it lacks a resourceVersion")
	}
	return nil
}

// mirror keeps an inventory like the cluster.
type mirror struct {
	client    kubernetes.Interface
	inventory *inventory
	log       *slog.Logger
	now       func() time.Time
	feeds     []*feed
}

func newMirror(client kubernetes.Interface, inventory *inventory, now func() time.Time, log *slog.Logger) *mirror {
	m := &mirror{client: client, inventory: inventory, log: log, now: now}
	for _, k := range kinds() {
		m.feeds = append(m.feeds, &feed{kind: k, mirror: m, filled: make(chan struct{})})
	}
	return m
}

// run watches until ctx ends.
func (m *mirror) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, f := range m.feeds {
		all.Go(func() { f.run(ctx) })
	}
	all.Wait()
}

// filled waits until everything has been read once.
func (m *mirror) filled(ctx context.Context) error {
	for _, f := range m.feeds {
		select {
		case <-f.filled:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%s have not been read: %w", f.kind.resource, context.Cause(ctx)), f.broken())
		}
	}
	return nil
}

// broken says which watches do not work: what the inventory holds of these kinds may be old.
func (m *mirror) broken() error {
	var errs []error
	for _, f := range m.feeds {
		errs = append(errs, f.broken())
	}
	return errors.Join(errs...)
}

// feed brings the objects of one kind into the inventory. It is the store of a client-go Reflector.
type feed struct {
	kind   kind
	mirror *mirror

	filled chan struct{}
	once   sync.Once

	mu  sync.Mutex
	err error
}

func (f *feed) run(ctx context.Context) {
	client := f.kind.client(f.mirror.client)
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			list := f.kind.list()
			err := client.Get().Resource(f.kind.resource).VersionedParams(&opts, scheme.ParameterCodec).Do(ctx).Into(list)
			if err == nil {
				err = whole(list)
			}
			return list, f.saw(ctx, err)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.Watch = true
			w, err := client.Get().Resource(f.kind.resource).VersionedParams(&opts, scheme.ParameterCodec).Watch(ctx)
			return w, f.saw(ctx, err)
		},
	}
	cache.NewReflectorWithOptions(lw, f.kind.example, f, cache.ReflectorOptions{Name: "reaper " + f.kind.resource}).RunWithContext(ctx)
}

// saw remembers whether the API server answers.
func (f *feed) saw(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	f.mu.Lock()
	was := f.err
	f.err = err
	f.mu.Unlock()
	switch {
	case err != nil && was == nil:
		f.mirror.log.WarnContext(ctx, "What the cluster holds cannot be read; nothing is deleted meanwhile", "resource", f.kind.resource, "error", err)
	case err == nil && was != nil:
		f.mirror.log.InfoContext(ctx, "What the cluster holds can be read again", "resource", f.kind.resource)
	}
	return err
}

func (f *feed) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	return fmt.Errorf("%s cannot be read: %w", f.kind.resource, f.err)
}

// first says that the kind has not been read once yet.
func (f *feed) first() bool {
	select {
	case <-f.filled:
		return false
	default:
		return true
	}
}

func (f *feed) record(o any) (record, error) {
	switch o := o.(type) {
	case record:
		return o, nil
	case runtime.Object:
		if r := recordOf(o); r != nil {
			return r, nil
		}
	}
	return nil, fmt.Errorf("%T is no %s", o, f.kind.name)
}

// Transformer implements cache.TransformingStore: the Reflector itself keeps records and no objects while it reads a list.
func (f *feed) Transformer() cache.TransformFunc {
	return func(o any) (any, error) { return f.record(o) }
}

// Add implements cache.ReflectorStore.
func (f *feed) Add(o any) error { return f.Update(o) }

// Update implements cache.ReflectorStore.
func (f *feed) Update(o any) error {
	r, err := f.record(o)
	if err != nil {
		return err
	}
	f.mirror.inventory.put(r, false)
	return nil
}

// Delete implements cache.ReflectorStore.
func (f *feed) Delete(o any) error {
	r, err := f.record(o)
	if err != nil {
		return err
	}
	f.mirror.inventory.drop(r)
	return nil
}

// Replace implements cache.ReflectorStore.
func (f *feed) Replace(list []any, _ string) error {
	records := make([]record, 0, len(list))
	for _, o := range list {
		r, err := f.record(o)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	f.mirror.inventory.replace(records, f.kind.holds, f.first())
	f.once.Do(func() { close(f.filled) })
	return nil
}

// Resync implements cache.ReflectorStore.
func (f *feed) Resync() error { return nil }
