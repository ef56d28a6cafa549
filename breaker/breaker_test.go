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
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// apiServer is a client of a real one.
func apiServer(t *testing.T) clientcorev1.CoreV1Interface {
	t.Helper()
	cp := controlplane.StartForTest(t, controlplane.Options{})
	config := *cp.Config
	config.QPS = -1
	client, err := clientcorev1.NewForConfig(&config)
	if err != nil {
		t.Fatal(err)
	}
	return client
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
	core := apiServer(t)
	maps := core.ConfigMaps("default")
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

	t.Run("asked of two replicas", func(t *testing.T) { testAskedAgain(t, maps) })
	t.Run("opened by hand", func(t *testing.T) { testOpenedByHand(t, maps, clock) })
	t.Run("an older server leaves what it does not know", func(t *testing.T) { testOlderServer(t, maps, clock) })
	t.Run("watched", func(t *testing.T) { testWatched(t, core, maps) })

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

func testOpenedByHand(t *testing.T, maps clientcorev1.ConfigMapInterface, clock func() time.Time) {
	put(t, maps, nil)
	b := newBreaker(t, maps, clock)
	if err := b.Take(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(t.Context(), maps, "alice", " ", start); err == nil || b.Closed(t.Context()) != nil {
		t.Errorf("without a reason: %v", err)
	}
	if before, after, err := Open(t.Context(), maps, "alice", "look at v2", start); err != nil || before.Open || after.OpenedBy != "alice" {
		t.Fatalf("opened: %+v, %+v, %v", before, after, err)
	}
	if before, after, err := Open(t.Context(), maps, "bob", "me too", start.Add(time.Hour)); err != nil || before.OpenedBy != "alice" || after.OpenedBy != "alice" {
		t.Errorf("opened again: %+v, %+v, %v", before, after, err)
	}
	const want = "the circuit breaker is open since 2026-01-02T03:04:05Z (opened by alice: look at v2); nothing is deleted until"
	for what, err := range map[string]error{"Closed": b.Closed(t.Context()), "Take": b.Take(t.Context(), "b"), "Take again": b.Take(t.Context(), "a")} {
		var open *OpenError
		if !errors.As(err, &open) || open.OpenedBy != "alice" || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		}
	}
	if err := b.GiveBack(t.Context(), "a", settled); err != nil || b.Closed(t.Context()) == nil {
		t.Errorf("after something was given back: %v, and it is closed", err)
	}
	if _, _, err := Release(t.Context(), maps, "bob", start.Add(time.Hour)); err != nil || b.Closed(t.Context()) != nil {
		t.Errorf("released: %v, %v", err, b.Closed(t.Context()))
	}
	cm, err := maps.Get(t.Context(), Name, metav1.GetOptions{})
	if err != nil || cm.Data[keyOpenedBy] != "" || cm.Data[keyOpenedAt] != "" || cm.Data[keyReleasedBy] != "bob" {
		t.Errorf("got %v, %v", cm.Data, err)
	}
}

// A server of before there were openings by hand closes and opens the breaker, and leaves keys that it does not know.
func testOlderServer(t *testing.T, maps clientcorev1.ConfigMapInterface, clock func() time.Time) {
	put(t, maps, map[string]string{
		keyState: stateOpen, keySince: stamp(start.Add(time.Hour)), keyReason: "more than 60 deletions at once, or 30 a minute",
		keyOpenedBy: "alice", keyOpenedAt: stamp(start),
	})
	s, err := Read(t.Context(), maps)
	if err != nil || !s.Open || s.OpenedBy != "" {
		t.Errorf("got %+v, %v; want it opened by itself", s, err)
	}
	var open *OpenError
	if err := newBreaker(t, maps, clock).Closed(t.Context()); !errors.As(err, &open) || open.OpenedBy != "" {
		t.Errorf("got %v", err)
	}
}

// transitions are what an Announcer was told.
type transitions chan Transition

func (c transitions) BreakerChanged(_ types.NamespacedName, uid types.UID, t Transition) {
	if uid != "" {
		c <- t
	}
}

func testWatched(t *testing.T, core clientcorev1.CoreV1Interface, maps clientcorev1.ConfigMapInterface) {
	put(t, maps, nil)
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	watch := func() transitions {
		told := make(transitions, 10)
		w := NewWatcher(WatcherOptions{
			Core: core.RESTClient(), Namespace: "default", Announcers: []Announcer{told}, Now: func() time.Time { return start.Add(30 * time.Minute) },
			Metrics: metrics, Logger: slog.New(slog.DiscardHandler),
		})
		go func() { _ = w.Run(t.Context()) }()
		return told
	}
	expect := func(told transitions, want Transition) {
		t.Helper()
		select {
		case got := <-told:
			if got.Open != want.Open || got.By != want.By || got.Reason != want.Reason || !got.Time.Equal(want.Time) {
				t.Errorf("told of %+v, want %+v", got, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("not told of %+v", want)
		}
	}
	told := watch()
	b := newBreaker(t, maps, func() time.Time { return start })
	if err := b.Take(t.Context(), "a"); err != nil { // of which nobody is told
		t.Fatal(err)
	}
	if _, _, err := Open(t.Context(), maps, "alice", "look at v2", start); err != nil {
		t.Fatal(err)
	}
	opened := Transition{Open: true, Time: start, By: "alice", Reason: "look at v2"}
	expect(told, opened)
	expect(watch(), opened) // one that starts tells again
	if got, err := testutil.GatherAndCount(registry, "agent_lifecycle_breaker_open"); err != nil || got != 1 {
		t.Fatal(got, err)
	}
	if got := testutil.ToFloat64(metrics.open); got != 1 {
		t.Errorf("the metric is %v", got)
	}
	if _, _, err := Release(t.Context(), maps, "bob", start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	expect(told, Transition{Time: start.Add(time.Minute), By: "bob"})
	if got := testutil.ToFloat64(metrics.open); got != 0 {
		t.Errorf("the metric is %v", got)
	}
	put(t, maps, map[string]string{keyState: stateOpen, keySince: stamp(start.Add(-2 * time.Hour)), keyReason: "long ago"})
	select {
	case got := <-watch():
		t.Errorf("told of what was long ago: %+v", got)
	case <-time.After(time.Second):
	}
	put(t, maps, map[string]string{keyState: "ajar"})
	deadline := time.Now().Add(5 * time.Second)
	for testutil.ToFloat64(metrics.open) != 1 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	if testutil.ToFloat64(metrics.open) != 1 {
		t.Error("one that cannot be read counts as closed")
	}
}

// The replica that was asked first must not give back what another one was asked for since.
func testAskedAgain(t *testing.T, maps clientcorev1.ConfigMapInterface) {
	put(t, maps, nil)
	now := start
	clock := func() time.Time { return now }
	first, second := newBreaker(t, maps, clock), newBreaker(t, maps, clock)
	if err := first.Take(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(30 * time.Second)
	if err := second.Take(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	counted := func() int {
		t.Helper()
		s, err := Read(t.Context(), maps)
		if err != nil {
			t.Fatal(err)
		}
		return len(s.Counted)
	}
	now = now.Add(6 * time.Second)
	if err := first.GiveBack(t.Context(), "a", settled); err != nil || counted() != 1 {
		t.Errorf("the first: %v, %d counted; want 1", err, counted())
	}
	now = now.Add(30 * time.Second)
	if err := second.GiveBack(t.Context(), "a", settled); err != nil || counted() != 0 {
		t.Errorf("the second: %v, %d counted; want none", err, counted())
	}
	put(t, maps, map[string]string{keyCounted: "a", keyAskedAgain: "a=soon"})
	if err := first.Closed(t.Context()); err == nil || !strings.Contains(err.Error(), `data.askedAgain is "a=soon"`) {
		t.Errorf("got %v", err)
	}
}
