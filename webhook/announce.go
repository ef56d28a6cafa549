package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/policy"
)

// Events is the Announcer that writes Kubernetes Events on the Deployments that go. They outlive them, in the agent's
// namespace, for as long as the API server keeps events.
type Events struct {
	client   clientcorev1.EventsGetter
	instance string
	metrics  *Metrics
	log      *slog.Logger
	queue    chan *corev1.Event
}

const (
	// maxEvents bounds the events that wait to be written: twice what the breaker lets go at once by default.
	maxEvents = 128

	// eventTimeout bounds the writing of one.
	eventTimeout = 5 * time.Second

	eventComponent = "lifecycle-webhook"

	// maxEventMessage and maxEventName are the API server's bounds, in bytes.
	maxEventMessage = 1024
	maxEventName    = 253

	// eventReason is by which people look for these events.
	eventReason = "SelfDeleted"
)

// NewEvents returns an Events that writes once Run is called. instance names this server.
func NewEvents(client clientcorev1.EventsGetter, instance string, metrics *Metrics, log *slog.Logger) *Events {
	return &Events{
		client: client, instance: instance, metrics: metrics, log: log, queue: make(chan *corev1.Event, maxEvents),
	}
}

// SelfDelete implements Announcer: it believes what it is told, see Confirmer. What does not fit into the queue is logged instead.
func (e *Events) SelfDelete(ctx context.Context, namespace string, proof *policy.SelfDelete, policyHash string) {
	event := newEvent(namespace, proof, policyHash, e.instance, time.Now())
	select {
	case e.queue <- event:
	default:
		e.metrics.selfDeleted()
		e.metrics.eventsLost.Inc()
		e.log.WarnContext(ctx, "Too many events wait to be written; this one is dropped", "namespace", namespace,
			"deployment", proof.Deployment, "message", event.Message)
	}
}

// Run writes events until ctx ends, and then those that wait still.
func (e *Events) Run(ctx context.Context) error {
	for {
		select {
		case event := <-e.queue:
			e.write(ctx, event)
		case <-ctx.Done():
			for {
				select {
				case event := <-e.queue:
					e.write(ctx, event)
				default:
					return nil
				}
			}
		}
	}
}

func (e *Events) write(ctx context.Context, event *corev1.Event) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), eventTimeout)
	defer cancel()
	_, err := e.client.Events(event.Namespace).Create(ctx, event, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return // another server, or this one before it was started again, has told of it and counted it
	}
	e.metrics.selfDeleted()
	if err != nil {
		e.metrics.eventsLost.Inc()
		e.log.WarnContext(ctx, "An event could not be written", "namespace", event.Namespace,
			"deployment", event.InvolvedObject.Name, "message", event.Message, "error", err)
	}
}

func newEvent(namespace string, proof *policy.SelfDelete, policyHash, instance string, now time.Time) *corev1.Event {
	at := metav1.NewTime(now)
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: eventName(proof)},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: deploymentKind.Kind, Namespace: namespace, Name: proof.Deployment, UID: proof.DeploymentUID,
		},
		Type: corev1.EventTypeNormal, Reason: eventReason, Action: "Delete",
		Message: bounded(fmt.Sprintf("deletes itself because it was idle: %s; policy %s", describeProof(proof), policyHash),
			maxEventMessage),
		Source:         corev1.EventSource{Component: eventComponent},
		FirstTimestamp: at, LastTimestamp: at, Count: 1, EventTime: metav1.NewMicroTime(now),
		ReportingController: eventComponent, ReportingInstance: instance,
	}
}

// eventName is the same for every server and every time that a Deployment's deletion is asked for, so that there is one
// Event of it.
func eventName(proof *policy.SelfDelete) string {
	suffix := "." + string(proof.DeploymentUID)
	name := proof.Deployment[:min(len(proof.Deployment), maxEventName-len(suffix))]
	return strings.TrimRight(name, "-.") + suffix
}
