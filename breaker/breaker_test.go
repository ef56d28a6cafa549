package breaker

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// configMaps are those of namespace default of a real API server.
func configMaps(t *testing.T) clientcorev1.ConfigMapInterface {
	t.Helper()
	cp := controlplane.StartForTest(t, controlplane.Options{})
	config := *cp.Config
	config.QPS = -1
	client, err := clientcorev1.NewForConfig(&config)
	if err != nil {
		t.Fatal(err)
	}
	return client.ConfigMaps("default")
}

func newBreaker(t *testing.T, maps ConfigMaps, now func() time.Time) *Breaker {
	t.Helper()
	return New(Options{
		ConfigMaps: maps, Limits: func() Limits { return limits }, Now: now,
		Metrics: NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})
}

func put(t *testing.T, maps clientcorev1.ConfigMapInterface, data map[string]string) {
	t.Helper()
	_ = maps.Delete(t.Context(), Name, metav1.DeleteOptions{})
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: Name}, Data: data}
	if _, err := maps.Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestBreaker(t *testing.T) {
	maps := configMaps(t)
	clock := func() time.Time { return start }

	t.Run("two replicas grant the burst together, and not one more", func(t *testing.T) {
		put(t, maps, nil)
		replicas := []*Breaker{newBreaker(t, maps, clock), newBreaker(t, maps, clock)}
		var granted, refused atomic.Int32
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				err := replicas[i%2].Take(t.Context(), fmt.Sprint(i))
				var open *OpenError
				switch {
				case err == nil:
					granted.Add(1)
				case errors.As(err, &open):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if granted.Load() != 10 || refused.Load() != 30 {
			t.Errorf("%d granted, %d refused; want 10, 30", granted.Load(), refused.Load())
		}
		var open *OpenError
		if err := replicas[0].Closed(t.Context()); !errors.As(err, &open) || !open.Since.Equal(start) {
			t.Errorf("got %v, want an OpenError", err)
		}
		before, after, err := Release(t.Context(), maps, "alice", start.Add(time.Hour))
		if err != nil || !before.Open || after.Open {
			t.Fatalf("release: %+v, %+v, %v", before, after, err)
		}
		if err := errors.Join(replicas[0].Closed(t.Context()), replicas[1].Take(t.Context(), "next")); err != nil {
			t.Error(err)
		}
		s, err := Read(t.Context(), maps)
		if err != nil || s.ReleasedBy != "alice" || !s.Since.Equal(start.Add(time.Hour)) {
			t.Errorf("got %+v, %v", s, err)
		}
	})

	t.Run("what cannot be read is not closed", func(t *testing.T) {
		b := newBreaker(t, maps, clock)
		for name, data := range map[string]map[string]string{
			`data.state is "ajar"`:       {keyState: "ajar"},
			`data.taken is "-1"`:         {keyTaken: "-1"},
			`data.taken is "NaN"`:        {keyTaken: "NaN"},
			`data.updated is "just now"`: {keyUpdated: "just now"},
		} {
			put(t, maps, data)
			if err := b.Take(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Take: got %v, want an error with %q", err, name)
			}
			if err := b.Closed(t.Context()); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("Closed: got %v, want an error with %q", err, name)
			}
		}
		if err := maps.Delete(t.Context(), Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := b.Take(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "does not exist") {
			t.Errorf("without a ConfigMap: %v", err)
		}
	})

	t.Run("what others keep in the ConfigMap stays", func(t *testing.T) {
		put(t, maps, map[string]string{"note": "see the runbook"})
		if err := newBreaker(t, maps, clock).Take(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		cm, err := maps.Get(t.Context(), Name, metav1.GetOptions{})
		if err != nil || cm.Data["note"] != "see the runbook" || cm.Data[keyState] != stateClosed || cm.Data[keyTaken] != "1.000" {
			t.Errorf("got %v, %v", cm.Data, err)
		}
	})
}
