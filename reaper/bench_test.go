package reaper

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

type fixedPolicy struct{ file *v1alpha1.LifecyclePolicy }

func (p fixedPolicy) File() *v1alpha1.LifecyclePolicy { return p.file }

type deaf struct{}

func (deaf) Announce(Event) {}

// fleet is a worker that has seen so many namespaces of a Deployment and five Pods each, all settled, and never asks an API server.
func fleet(tb testing.TB, namespaces int) *worker {
	tb.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		tb.Fatal(err)
	}
	file.Reaper.Namespaces.Orgs = []string{"bench"}
	file.Reaper.Leftovers.Mode = v1alpha1.ReaperOff
	w := newWorker(Options{
		Policy: fixedPolicy{file}, Announcer: deaf{}, DryRun: true, Now: func() time.Time { return now },
		Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}, nil, nil)
	before := metav1.NewTime(now.Add(-48 * time.Hour))
	for n := range namespaces {
		name := fmt.Sprintf("agent-%05d", n)
		meta := func(name, of string) metav1.ObjectMeta {
			return metav1.ObjectMeta{
				Namespace: of, Name: name, UID: types.UID(fmt.Sprintf("%s/%032d", name, n)), ResourceVersion: fmt.Sprint(n), CreationTimestamp: before,
				Labels: map[string]string{lifecycle.LabelDeployment: "worker"},
			}
		}
		ns := &corev1.Namespace{ObjectMeta: meta(name, "")}
		ns.Labels = map[string]string{lifecycle.LabelAgentRole: name, lifecycle.LabelOrg: "bench", lifecycle.LabelEnvironment: "bench"}
		ns.Annotations = map[string]string{
			lifecycle.AnnotationLastPodActivity: before.UTC().Format(time.RFC3339),
			lifecycle.AnnotationPhase:           before.UTC().Format(time.RFC3339) + " active",
		}
		w.inventory.put(recordOf(ns), true)
		w.inventory.put(recordOf(&appsv1.Deployment{ObjectMeta: meta("worker", name)}), true)
		for i := range 5 {
			p := &corev1.Pod{ObjectMeta: meta(fmt.Sprintf("worker-%d", i), name)}
			p.Status.Phase = corev1.PodRunning
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: before}}
			w.inventory.put(recordOf(p), true)
		}
	}
	return w
}

// BenchmarkPass is a pass over 10,000 namespaces and 50,000 Pods in which nothing has changed.
func BenchmarkPass(b *testing.B) {
	w := fleet(b, 10_000)
	for _, r := range w.reapers() {
		b.Run(r.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if result := r.pass(context.Background()); result.Error != "" || result.Candidates > 0 {
					b.Fatalf("got %+v, want nothing to do", result)
				}
			}
		})
	}
}

// BenchmarkInventory says how much memory is kept of a namespace with a Deployment and five Pods.
func BenchmarkInventory(b *testing.B) {
	const namespaces = 10_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var w *worker
	for b.Loop() {
		if w != nil {
			w.agents.queue.ShutDown()
			w.queue.ShutDown()
		}
		w = fleet(b, namespaces)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/namespaces, "B/namespace")
	runtime.KeepAlive(w)
}
