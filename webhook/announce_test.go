package webhook

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apivalidation "k8s.io/apimachinery/pkg/util/validation"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/policy"
)

// testEvents writes to a real API server, whose rules for events are its own.
func testEvents(t *testing.T, core clientcorev1.CoreV1Interface) {
	registry := prometheus.NewRegistry()
	e := NewEvents(core, "test", NewMetrics(registry, "test"), slog.New(slog.DiscardHandler))
	long := &policy.SelfDelete{
		Deployment: strings.Repeat("long.", 50) + "abc", DeploymentUID: "e8c1c8a0-0000-4000-8000-000000000001",
		Pod: strings.Repeat("p", 250), ContainerID: strings.Repeat("c", 1000),
	}
	// Nobody writes yet: as many as fit wait, and none of the rest makes anybody wait.
	for i := range maxEvents + 10 {
		proof := *long
		if i > 1 { // one is asked for twice, as by two servers
			proof = policy.SelfDelete{Deployment: fmt.Sprintf("d-%d", i), DeploymentUID: "u"}
		}
		e.SelfDelete(t.Context(), covered, &proof, "hash")
	}
	if n := metric(t, registry, `agent_lifecycle_self_delete_events_lost_total`); n != "10" {
		t.Errorf("%s events were lost, want 10", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // What waits is written all the same.
	must(t, e.Run(ctx))
	list, err := core.Events(covered).List(t.Context(), metav1.ListOptions{})
	must(t, err)
	if len(list.Items) != maxEvents-1 {
		t.Errorf("%d events, want %d", len(list.Items), maxEvents-1)
	}
	// Each agent once, also the one of which two servers tell, and those whose event was lost.
	accepted, want := metric(t, registry, `agent_lifecycle_self_deletes_total{answer="accepted"}`), fmt.Sprint(maxEvents+10-1)
	if accepted != want {
		t.Errorf("%s agents count as deleted, want %s", accepted, want)
	}
	if n := metric(t, registry, `agent_lifecycle_self_delete_events_lost_total`); n != "10" {
		t.Errorf("%s events were lost, want 10", n)
	}
}

func TestEventName(t *testing.T) {
	for _, name := range []string{"a", strings.Repeat("x", 253), strings.Repeat("x.", 126), strings.Repeat("x-", 126) + "x"} {
		got := eventName(&policy.SelfDelete{Deployment: name, DeploymentUID: "e8c1c8a0-0000-4000-8000-000000000001"})
		if wrong := apivalidation.IsDNS1123Subdomain(got); len(wrong) > 0 {
			t.Errorf("%q: %v", got, wrong)
		}
	}
}
