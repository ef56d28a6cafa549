package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/dexorder/agent-lifecycle/reaper"
)

// announcers tell each of several.
type announcers []reaper.Announcer

// Announce implements reaper.Announcer.
func (all announcers) Announce(e reaper.Event) {
	for _, a := range all {
		a.Announce(e)
	}
}

// kubernetesEvents writes Kubernetes Events about what people look for by kubectl describe. What a Deployment or a Pod goes through has
// Events already.
type kubernetesEvents struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
	core        clientcorev1.CoreV1Interface
}

func newKubernetesEvents(core clientcorev1.CoreV1Interface) *kubernetesEvents {
	broadcaster := record.NewBroadcaster()
	return &kubernetesEvents{
		broadcaster: broadcaster, core: core,
		recorder: broadcaster.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: "lifecycle-reaper"}),
	}
}

// Run implements program.Component.
func (k *kubernetesEvents) Run(ctx context.Context) error {
	k.broadcaster.StartRecordingToSink(&clientcorev1.EventSinkImpl{Interface: k.core.Events("")})
	<-ctx.Done()
	k.broadcaster.Shutdown()
	return nil
}

// reasons are the events that become Kubernetes Events, with their reasons; warnings are those that somebody should look at.
var (
	reasons = map[reaper.EventType]string{
		reaper.NamespaceUnhealthy: "AgentUnhealthy",
		reaper.NamespaceMarked:    "MarkedForReaping",
		reaper.NamespaceReaped:    "Reaped",
		reaper.NamespaceStuck:     "StuckTerminating",
		reaper.NamespaceDrifted:   "Drifted",
		reaper.ObjectReaped:       "Reaped",
		reaper.AgentReaped:        "Reaped",
		reaper.CapExceeded:        "CapExceeded",
	}
	warnings = map[reaper.EventType]bool{
		reaper.NamespaceUnhealthy: true, reaper.NamespaceStuck: true, reaper.NamespaceDrifted: true, reaper.CapExceeded: true,
	}
)

// Announce implements reaper.Announcer.
func (k *kubernetesEvents) Announce(e reaper.Event) {
	reason, has := reasons[e.Type]
	if !has {
		return
	}
	if e.Type == reaper.CapExceeded {
		e.Kind, e.Name, e.Namespace = "Namespace", e.Namespace, ""
	}
	kind := corev1.EventTypeNormal
	if warnings[e.Type] {
		kind = corev1.EventTypeWarning
	}
	k.recorder.Event(&corev1.ObjectReference{
		APIVersion: apiVersions[e.Kind], Kind: e.Kind, Namespace: e.Namespace, Name: e.Name, UID: e.UID,
	}, kind, reason, e.Reason)
}

// apiVersions are those of the kinds that are not in v1.
var apiVersions = map[string]string{
	"Namespace": "v1", "PersistentVolumeClaim": "v1", "ConfigMap": "v1", "Secret": "v1", "Deployment": "apps/v1", "Job": "batch/v1",
}
