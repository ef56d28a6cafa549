package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

// Cluster is the FactSource of a real cluster. It remembers the Deployments, and by their metadata the ReplicaSets, Jobs
// and PersistentVolumeClaims, of the namespaces that the policy covers; the rest, and what memory does not know, it asks
// the API server.
//
// Namespaces that a policy names are watched one by one. A policy with a prefix makes it watch the whole cluster, since
// a watch cannot select by prefix; of namespaces that are not covered it keeps names only. The rights it takes:
//
//	deployments, replicasets (apps), jobs (batch), persistentvolumeclaims: get, list, watch
//	statefulsets, daemonsets (apps), cronjobs (batch), replicationcontrollers: get
//	pods: get, watch
//	mutatingwebhookconfigurations, validatingwebhookconfigurations: get, for the ones of its own
type Cluster struct {
	config *rest.Config
	scheme *runtime.Scheme
	mapper meta.RESTMapper
	live   client.WithWatch
	now    func() time.Time
	log    *slog.Logger

	mu      sync.Mutex
	wanted  scope
	changed chan struct{}

	// current is the memory in use; nil before the first one is complete.
	current atomic.Pointer[memory]
}

// memory is a set of caches for one scope.
type memory struct {
	scope
	cache.Cache
}

// NewCluster returns a Cluster that asks the API server for everything until Run has filled its memory.
func NewCluster(config *rest.Config, coverage []v1alpha1.Namespaces, log *slog.Logger) (*Cluster, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	mapper := newMapper()
	live, err := client.NewWithWatch(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return &Cluster{
		config: config, scheme: scheme, mapper: mapper, live: live, now: time.Now, log: log,
		wanted: newScope(coverage), changed: make(chan struct{}, 1),
	}, nil
}

// Live returns the client that asks the API server.
func (c *Cluster) Live() client.Reader { return c.live }

// Cover makes Run remember other namespaces from now on.
func (c *Cluster) Cover(coverage []v1alpha1.Namespaces) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := newScope(coverage); !s.equal(c.wanted) {
		c.wanted = s
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
}

// Ready is nil once there is a memory. While a new policy's namespaces are being read it stays so: the other ones are
// served as before.
func (c *Cluster) Ready() error {
	if c.current.Load() == nil {
		return errors.New("the cluster's objects have not all been read yet")
	}
	return nil
}

// Run fills the memory and keeps it current until ctx ends.
func (c *Cluster) Run(ctx context.Context) error {
	stop := func() {}
	defer func() { stop() }() //nolint:gocritic // stop changes until then.
	for {
		c.mu.Lock()
		wanted := c.wanted
		c.mu.Unlock()
		cacheCtx, cancel := context.WithCancel(ctx)
		m, err := c.remember(cacheCtx, wanted)
		if err != nil {
			cancel()
			return fmt.Errorf("caches: %w", err)
		}
		if m != nil {
			c.current.Store(m)
			stop() // the one before, if any: nobody looks at it from here on but requests that are under way
			stop = cancel
			c.log.InfoContext(ctx, "The cluster's objects have been read", "namespaces", wanted.String())
		} else {
			cancel()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
	}
}

// remember starts caches and waits until they are complete. It returns nil without an error when it is no longer worth
// waiting, because ctx ended or another scope is wanted; then a value is left in changed, or ctx is done.
func (c *Cluster) remember(ctx context.Context, s scope) (*memory, error) {
	objects, err := cache.New(c.config, cache.Options{
		Scheme: c.scheme, Mapper: c.mapper, DefaultNamespaces: s.namespaces(),
		DefaultTransform: s.strip, ReaderFailOnMissingInformer: true,
	})
	if err != nil {
		return nil, err
	}
	if err := objects.IndexField(ctx, &appsv1.Deployment{}, claimIndex, mountedClaims); err != nil {
		return nil, err
	}
	for _, o := range remembered() {
		if _, err := objects.GetInformer(ctx, o, cache.BlockUntilSynced(false)); err != nil {
			return nil, err
		}
	}
	go func() {
		if err := objects.Start(ctx); err != nil && ctx.Err() == nil {
			c.log.ErrorContext(ctx, "The caches ended", "error", err)
		}
	}()
	synced := make(chan bool, 1)
	go func() { synced <- objects.WaitForCacheSync(ctx) }()
	select {
	case <-c.changed:
		c.changed <- struct{}{} // for Run
		return nil, nil
	case ok := <-synced:
		if !ok {
			return nil, nil
		}
		return &memory{scope: s, Cache: objects}, nil
	}
}

// remembered lists what is watched.
func remembered() []client.Object {
	objects := []client.Object{&appsv1.Deployment{}}
	for _, gvk := range metadataOnly {
		o := &metav1.PartialObjectMetadata{}
		o.SetGroupVersionKind(gvk)
		objects = append(objects, o)
	}
	return objects
}

// scope is a set of namespaces: the union of what the profiles cover.
type scope struct {
	names, prefixes []string

	// except are namespaces that a prefix matches and that are not in the set.
	except []string
}

func newScope(coverage []v1alpha1.Namespaces) scope {
	var s scope
	for _, n := range coverage {
		s.names = append(s.names, n.Names...)
		s.prefixes = append(s.prefixes, n.Prefixes...)
		s.except = append(s.except, n.Except...)
	}
	// What one profile leaves out another one may cover by its name.
	s.except = slices.DeleteFunc(s.except, func(name string) bool { return slices.Contains(s.names, name) })
	return s.sorted()
}

// sorted returns the scope with every name and prefix once, in order. It changes s.
func (s scope) sorted() scope {
	slices.Sort(s.names)
	slices.Sort(s.prefixes)
	slices.Sort(s.except)
	return scope{slices.Compact(s.names), slices.Compact(s.prefixes), slices.Compact(s.except)}
}

func (s scope) equal(t scope) bool {
	return slices.Equal(s.names, t.names) && slices.Equal(s.prefixes, t.prefixes) && slices.Equal(s.except, t.except)
}

func (s scope) covers(namespace string) bool {
	n := v1alpha1.Namespaces{Names: s.names, Prefixes: s.prefixes, Except: s.except}
	return n.Covers(namespace)
}

func (s scope) String() string {
	if len(s.names)+len(s.prefixes) == 0 {
		return "none"
	}
	list := slices.Clone(s.names)
	for _, prefix := range s.prefixes {
		list = append(list, prefix+"*")
	}
	for _, name := range s.except {
		list = append(list, "but not "+name)
	}
	return strings.Join(list, ", ")
}

// namespaces returns what to watch: all, for which there is no way around with prefixes, or the ones by name.
func (s scope) namespaces() map[string]cache.Config {
	if len(s.prefixes) > 0 {
		return nil
	}
	watched := map[string]cache.Config{}
	for _, name := range s.names {
		watched[name] = cache.Config{}
	}
	return watched
}

// Deleted says whether the Deployment of that UID is terminating or gone. With live it is asked of the API server; else
// memory answers, which may be a moment old.
func (c *Cluster) Deleted(ctx context.Context, namespace, name string, uid types.UID, live bool) (bool, error) {
	var from client.Reader = c.live
	if m := c.current.Load(); !live && m != nil && m.covers(namespace) {
		from = m
	}
	found, err := read(ctx, from, namespace, name, &appsv1.Deployment{})
	if err != nil {
		return false, err
	}
	return found == nil || found.GetUID() != uid || found.GetDeletionTimestamp() != nil, nil
}

// StoredDeployment returns a Deployment as the API server has it, nil if there is none.
func (c *Cluster) StoredDeployment(ctx context.Context, namespace, name string) (*appsv1.Deployment, error) {
	d := &appsv1.Deployment{}
	found, err := read(ctx, c.live, namespace, name, d)
	if err != nil || found == nil {
		return nil, err
	}
	return d, nil
}
