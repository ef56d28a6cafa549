package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/events"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// breakerParts are the circuit breaker and what its users share.
type breakerParts struct {
	*breaker.Breaker
	metrics *breaker.Metrics
}

func newBreaker(core clientcorev1.CoreV1Interface, namespace string, policies *webhook.PolicyFile, registry prometheus.Registerer, log *slog.Logger) breakerParts {
	metrics := breaker.NewMetrics(registry)
	limits := func() breaker.Limits {
		limits := policies.SelfDelete().Breaker
		return breaker.Limits{Burst: int(limits.Burst), PerMinute: int(limits.PerMinute)}
	}
	return breakerParts{metrics: metrics, Breaker: breaker.New(breaker.Options{
		ConfigMaps: core.ConfigMaps(namespace), Now: time.Now, Metrics: metrics, Logger: log, Limits: limits,
	})}
}

// watch returns the part that tells when the breaker opens and closes: by a Kubernetes Event, and to the others.
func (b breakerParts) watch(core clientcorev1.CoreV1Interface, namespace string, log *slog.Logger, others ...breaker.Announcer) *breaker.Watcher {
	return breaker.NewWatcher(breaker.WatcherOptions{
		Core: core.RESTClient(), Namespace: namespace, Now: time.Now, Metrics: b.metrics, Logger: log,
		Announcers: append([]breaker.Announcer{breakerEvents{core, log}}, others...),
	})
}

// breakerEvents writes Kubernetes Events on the breaker's ConfigMap.
type breakerEvents struct {
	core clientcorev1.EventsGetter
	log  *slog.Logger
}

// breakerEventTimeout bounds the writing of one.
const breakerEventTimeout = 5 * time.Second

// BreakerChanged implements breaker.Announcer. The Event's name is the same for every server that sees the same, so
// that there is one.
func (b breakerEvents) BreakerChanged(configMap types.NamespacedName, uid types.UID, t breaker.Transition) {
	event := breakerEvent(configMap, uid, t, time.Now())
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), breakerEventTimeout)
		defer cancel()
		_, err := b.core.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			b.log.Warn("An event could not be written", "namespace", event.Namespace, "message", event.Message, "error", err)
		}
	}()
}

const (
	breakerComponent = "lifecycle-breaker"

	// By these reasons people look for the Events.
	breakerOpenedReason = "BreakerOpened"
	breakerClosedReason = "BreakerClosed"
)

func breakerEvent(configMap types.NamespacedName, uid types.UID, t breaker.Transition, now time.Time) *corev1.Event {
	at := metav1.NewTime(now)
	event := &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: configMap.Namespace},
		InvolvedObject: corev1.ObjectReference{APIVersion: "v1", Kind: "ConfigMap", Namespace: configMap.Namespace, Name: configMap.Name, UID: uid},
		Source:         corev1.EventSource{Component: breakerComponent},
		FirstTimestamp: at, LastTimestamp: at, Count: 1, EventTime: metav1.NewMicroTime(now),
		ReportingController: breakerComponent, ReportingInstance: instance(),
	}
	opened, closed := "it opened by itself", "it closed by itself"
	if t.By != "" {
		opened, closed = "opened by "+t.By, "closed by "+t.By
	}
	if t.Open {
		event.Type, event.Reason, event.Action = corev1.EventTypeWarning, breakerOpenedReason, "Open"
		event.Message = fmt.Sprintf("nothing is deleted until an operator runs kubectl agents breaker release; %s: %s", opened, t.Reason)
	} else {
		event.Type, event.Reason, event.Action = corev1.EventTypeNormal, breakerClosedReason, "Close"
		event.Message = "what is idle is deleted again; " + closed
		if t.Reason != "" {
			event.Message += ": " + t.Reason
		}
	}
	event.Message = strings.ToValidUTF8(event.Message[:min(len(event.Message), maxEventMessage)], "")
	event.Name = fmt.Sprintf("%s.%s.%x", configMap.Name, event.Action, t.Time.UnixNano())
	return event
}

// maxEventMessage is the API server's bound, in bytes.
const maxEventMessage = 1024

// BreakerChanged implements breaker.Announcer.
func (p *published) BreakerChanged(configMap types.NamespacedName, uid types.UID, t breaker.Transition) {
	kind := events.BreakerClosed
	if t.Open {
		kind = events.BreakerOpened
	}
	event := events.Breaker(eventSource, kind, events.BreakerData{
		Namespace: configMap.Namespace, ConfigMap: configMap.Name, UID: string(uid), By: t.By, Reason: t.Reason, Since: t.Time,
	}, p.now())
	p.mu.Lock()
	p.breaker = &event
	p.mu.Unlock()
	p.publisher.Publish(event)
}

func (p *published) breakerEvent() *events.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker
}
