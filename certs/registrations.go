package certs

import (
	"context"
	"log/slog"
	"net/url"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	admissionregistrationclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	kindMutating   = "MutatingWebhookConfiguration"
	kindValidating = "ValidatingWebhookConfiguration"
)

// registration is what matters here of one named webhook configuration at one moment.
type registration struct {
	kind, name      string
	state           registrationState
	resourceVersion string
	webhooks        []webhook
}

type registrationState int

const (
	unread registrationState = iota
	absent
	present
)

// webhook is one entry of a webhook configuration: the name the API server will look for in the certificate, and the
// authorities that it will accept there.
type webhook struct {
	name       string
	serverName string
	caBundle   []byte
}

// watcher follows the named webhook configurations and no others: one watch each, selected by name, so that neither
// memory nor rights grow with what else is registered in the cluster.
type watcher struct {
	watched []watchedRegistration
	changed func()
	log     *slog.Logger
}

type watchedRegistration struct {
	kind, name string
	store      cache.Store
	controller cache.Controller
}

// newWatcher prepares the watches; changed is called, from any goroutine, whenever snapshot may have a new answer.
func newWatcher(
	client admissionregistrationclient.AdmissionregistrationV1Interface,
	names Registrations,
	log *slog.Logger,
	changed func(),
) *watcher {
	w := &watcher{changed: changed, log: log}
	for _, name := range names.Mutating {
		w.add(kindMutating, name, &admissionregistrationv1.MutatingWebhookConfiguration{}, &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return client.MutatingWebhookConfigurations().List(ctx, onlyNamed(o, name))
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return client.MutatingWebhookConfigurations().Watch(ctx, onlyNamed(o, name))
			},
		})
	}
	for _, name := range names.Validating {
		w.add(kindValidating, name, &admissionregistrationv1.ValidatingWebhookConfiguration{}, &cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return client.ValidatingWebhookConfigurations().List(ctx, onlyNamed(o, name))
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				return client.ValidatingWebhookConfigurations().Watch(ctx, onlyNamed(o, name))
			},
		})
	}
	return w
}

func onlyNamed(o metav1.ListOptions, name string) metav1.ListOptions {
	o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	return o
}

func (w *watcher) add(kind, name string, objectType runtime.Object, lw *cache.ListWatch) {
	store, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    objectType,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { w.changed() },
			UpdateFunc: func(_, _ any) { w.changed() },
			DeleteFunc: func(any) { w.changed() },
		},
	})
	w.watched = append(w.watched, watchedRegistration{kind: kind, name: name, store: store, controller: controller})
}

func (w *watcher) run(ctx context.Context) {
	ctx = logr.NewContextWithSlogLogger(ctx, w.log)
	var running sync.WaitGroup
	for _, r := range w.watched {
		running.Go(func() { r.controller.RunWithContext(ctx) })
		running.Go(func() {
			select {
			case <-ctx.Done():
			case <-r.controller.HasSyncedChecker().Done():
				w.changed() // an empty list has no event of its own, yet it tells absent from unread
			}
		})
	}
	running.Wait()
}

// snapshot returns the registrations in the order they were named, mutating first.
func (w *watcher) snapshot() []registration {
	result := make([]registration, 0, len(w.watched))
	for _, r := range w.watched {
		result = append(result, r.read())
	}
	return result
}

func (r watchedRegistration) read() registration {
	result := registration{kind: r.kind, name: r.name, state: unread}
	if !r.controller.HasSynced() {
		return result
	}
	result.state = absent
	object, exists, err := r.store.GetByKey(r.name)
	if err != nil || !exists {
		return result
	}
	switch config := object.(type) {
	case *admissionregistrationv1.MutatingWebhookConfiguration:
		result.state, result.resourceVersion = present, config.ResourceVersion
		for _, w := range config.Webhooks {
			result.webhooks = append(result.webhooks, newWebhook(w.Name, w.ClientConfig))
		}
	case *admissionregistrationv1.ValidatingWebhookConfiguration:
		result.state, result.resourceVersion = present, config.ResourceVersion
		for _, w := range config.Webhooks {
			result.webhooks = append(result.webhooks, newWebhook(w.Name, w.ClientConfig))
		}
	}
	return result
}

func newWebhook(name string, config admissionregistrationv1.WebhookClientConfig) webhook {
	return webhook{name: name, serverName: serverName(config), caBundle: slices.Clone(config.CABundle)}
}

// serverName is the name that the API server verifies: of a service, always name.namespace.svc, whatever else the
// service answers to.
func serverName(config admissionregistrationv1.WebhookClientConfig) string {
	if config.Service != nil {
		return config.Service.Name + "." + config.Service.Namespace + ".svc"
	}
	if config.URL != nil {
		if u, err := url.Parse(*config.URL); err == nil {
			return u.Hostname()
		}
	}
	return ""
}
