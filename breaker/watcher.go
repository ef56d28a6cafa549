package breaker

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// Announcer is told when the breaker has opened or closed. It must not block. Every process that watches tells of the
// same.
type Announcer interface {
	BreakerChanged(configMap types.NamespacedName, uid types.UID, t Transition)
}

// WatcherOptions are what a Watcher works with. All are required.
type WatcherOptions struct {
	// Core is a REST client of the core API, Namespace the one that holds the breaker.
	Core      rest.Interface
	Namespace string

	Announcers []Announcer
	Now        func() time.Time
	Metrics    *Metrics
	Logger     *slog.Logger
}

// Watcher follows the ConfigMap, so that an opening is known wherever it was made, also by hand and while nobody asks
// to be deleted. No deletion rests on it: a watch may be behind, so that Take and Closed read the ConfigMap itself.
type Watcher struct {
	options WatcherOptions

	mu sync.Mutex
	// last is the transition that was told of last.
	last Transition
	// unreadable is what was last logged about a ConfigMap that cannot be read.
	unreadable string
}

// NewWatcher returns a Watcher that watches once Run is called.
func NewWatcher(options WatcherOptions) *Watcher { return &Watcher{options: options} }

// ToldAgain is how far back a process that starts tells of the last transition: who was away then may have missed it.
const ToldAgain = time.Hour

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	started := w.options.Now()
	list := cache.NewListWatchFromClient(w.options.Core, "configmaps", w.options.Namespace, fields.OneTermEqualSelector("metadata.name", Name))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list, ObjectType: &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.saw(o, started) },
			UpdateFunc: func(_, o any) { w.saw(o, started) },
			DeleteFunc: func(any) {
				w.unread(fmt.Errorf("ConfigMap %s/%s was deleted; apply the manifests again", w.options.Namespace, Name))
			},
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

func (w *Watcher) saw(o any, started time.Time) {
	cm, is := o.(*corev1.ConfigMap)
	if !is {
		return
	}
	state, err := decode(cm)
	if err != nil {
		w.unread(err)
		return
	}
	w.options.Metrics.saw(state.Open)
	t, has := lastTransition(&state)
	w.mu.Lock()
	w.unreadable = ""
	known := t.Open == w.last.Open && t.Time.Equal(w.last.Time)
	if has {
		w.last = t
	}
	w.mu.Unlock()
	if !has || known || t.Time.Before(started.Add(-ToldAgain)) {
		return
	}
	log := w.options.Logger.With("since", t.Time.UTC().Format(time.RFC3339), "by", t.By, "reason", t.Reason)
	if t.Open {
		log.Error("The circuit breaker is open: nothing is deleted until it is released")
	} else {
		log.Warn("The circuit breaker is closed again")
	}
	for _, a := range w.options.Announcers {
		a.BreakerChanged(types.NamespacedName{Namespace: cm.Namespace, Name: cm.Name}, cm.UID, t)
	}
}

// unread logs once that the breaker cannot be read. Nothing is deleted then either.
func (w *Watcher) unread(err error) {
	w.mu.Lock()
	said := w.unreadable == err.Error()
	w.unreadable = err.Error()
	w.mu.Unlock()
	w.options.Metrics.saw(true)
	if !said {
		w.options.Logger.Error("The circuit breaker cannot be read: nothing is deleted until it can", "error", err)
	}
}
