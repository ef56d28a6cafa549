package webhook

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/policy"
)

// confirming is a Confirmer of a cluster that consists of a function, and what it did.
type confirming struct {
	*Confirmer
	told     announced
	returned atomic.Int64
	deleted  func(live bool) (bool, error)
	metrics  *prometheus.Registry
}

func newConfirming(deleted func(live bool) (bool, error)) *confirming {
	c := &confirming{deleted: deleted, metrics: prometheus.NewRegistry()}
	c.Confirmer = NewConfirmer(ConfirmerOptions{
		Deleted: func(_ context.Context, _, _ string, _ types.UID, live bool) (bool, error) { return c.deleted(live) },
		GiveBack: func(context.Context, string, time.Duration) error {
			c.returned.Add(1)
			return nil
		},
		Announcer: &c.told, Metrics: NewMetrics(c.metrics, "test"), Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	return c
}

func TestConfirmer(t *testing.T) {
	for _, tt := range []struct {
		name      string
		deleted   func(at time.Duration, live bool) (bool, error)
		again     time.Duration // asked for again; zero: not
		announced int64
		returned  int64
		lost      string
		at        time.Duration // until when nothing has happened
	}{
		{
			name: "deleted", announced: 1, lost: "0", at: time.Second,
			deleted: func(at time.Duration, _ bool) (bool, error) { return at > time.Second, nil },
		},
		{
			name: "deleted, asked for twice", announced: 1, lost: "0", at: 2 * time.Second, again: time.Second,
			deleted: func(at time.Duration, _ bool) (bool, error) { return at > 2*time.Second, nil },
		},
		{
			name: "never deleted", returned: 1, lost: "0", at: confirmWithin - time.Second,
			deleted: func(time.Duration, bool) (bool, error) { return false, nil },
		},
		{
			name: "memory errs", returned: 1, lost: "0", at: confirmWithin - time.Second,
			deleted: func(_ time.Duration, live bool) (bool, error) { return !live, nil },
		},
		{
			name: "memory is late", announced: 1, lost: "0", at: confirmWithin - time.Second,
			deleted: func(_ time.Duration, live bool) (bool, error) { return live, nil },
		},
		{
			name: "asked for again, never deleted", returned: 1, lost: "0", at: confirmWithin + 9*time.Second, again: 10 * time.Second,
			deleted: func(time.Duration, bool) (bool, error) { return false, nil },
		},
		{
			name: "not readable", lost: "1", at: confirmWithin - time.Second,
			deleted: func(time.Duration, bool) (bool, error) { return false, errors.New("away") },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				c := newConfirming(func(live bool) (bool, error) { return tt.deleted(time.Since(began), live) })
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { must(t, c.Run(ctx)) })
				proof := &policy.SelfDelete{Deployment: "a", DeploymentUID: "u"}
				c.SelfDelete(ctx, covered, proof, "hash")
				if tt.again > 0 {
					time.AfterFunc(tt.again, func() { c.SelfDelete(ctx, covered, proof, "hash") })
				}
				time.Sleep(tt.at)
				synctest.Wait()
				if c.told.n.Load() > 0 || c.returned.Load() > 0 {
					t.Errorf("after %s: announced %d times, given back %d times", tt.at, c.told.n.Load(), c.returned.Load())
				}
				time.Sleep(10 * confirmWithin)
				synctest.Wait()
				if lost := metric(t, c.metrics, "agent_lifecycle_self_delete_events_lost_total"); c.told.n.Load() != tt.announced ||
					c.returned.Load() != tt.returned || lost != tt.lost {
					t.Errorf("announced %d times, given back %d times, lost %s; want %d, %d, %s", c.told.n.Load(), c.returned.Load(), lost, tt.announced,
						tt.returned, tt.lost)
				}
				cancel()
				running.Wait()
			})
		})
	}
}

// A server that stops still announces what it accepted last, and gives back nothing that it cannot know.
func TestConfirmerStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := newConfirming(func(bool) (bool, error) { return time.Since(began) > 400*time.Millisecond, nil })
		ctx, cancel := context.WithCancel(t.Context())
		c.SelfDelete(ctx, covered, &policy.SelfDelete{DeploymentUID: "u"}, "hash")
		cancel()
		must(t, c.Run(ctx))
		if c.told.n.Load() != 1 {
			t.Errorf("announced %d times, want once", c.told.n.Load())
		}
		c = newConfirming(func(bool) (bool, error) { return false, nil })
		c.SelfDelete(ctx, covered, &policy.SelfDelete{DeploymentUID: "u"}, "hash")
		must(t, c.Run(ctx))
		if c.told.n.Load() != 0 || c.returned.Load() != 0 {
			t.Errorf("announced %d times, given back %d times", c.told.n.Load(), c.returned.Load())
		}
	})
}

func TestConfirmerIsBounded(t *testing.T) {
	c := newConfirming(nil)
	for i := range maxPending + 3 {
		c.SelfDelete(t.Context(), covered, &policy.SelfDelete{DeploymentUID: types.UID(rune('a' + i))}, "hash")
	}
	if lost := metric(t, c.metrics, "agent_lifecycle_self_delete_events_lost_total"); lost != "3" || len(c.pending) != maxPending {
		t.Errorf("%d are pending, %s were lost; want %d, 3", len(c.pending), lost, maxPending)
	}
}

// testForgedReview sends a review of its own making to the server, for a Deployment whose agent has really ended: neither
// breaker nor Events know of it afterwards. Of one that is deleted they know.
func (c *inCluster) testForgedReview(t *testing.T, cp *controlplane.ControlPlane) {
	cluster, err := NewCluster(cp.Config, nil, slog.New(slog.DiscardHandler))
	must(t, err)
	const namespace = "forged"
	core := c.api.CoreV1()
	_, err = core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	must(t, err)
	_, err = core.ConfigMaps(namespace).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: breaker.Name}},
		metav1.CreateOptions{})
	must(t, err)
	b := breaker.New(breaker.Options{
		ConfigMaps: core.ConfigMaps(namespace), Limits: func() breaker.Limits { return breaker.Limits{Burst: 1, PerMinute: 1} }, Now: time.Now,
		Metrics: breaker.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})
	k := &kubelet{}
	k.exited.Store(true)
	a, _, _, _ := selfDeleting(k)
	log := slog.New(slog.DiscardHandler)
	events := NewEvents(core, "test", a.Metrics, log)
	var shift time.Duration
	confirmer := NewConfirmer(ConfirmerOptions{
		Deleted: cluster.Deleted, GiveBack: b.GiveBack, Announcer: events, Metrics: a.Metrics, Logger: log,
		Now: func() time.Time { return time.Now().Add(shift) },
	})
	a.Breaker, a.Announcer = b, confirmer
	state := func() breaker.State {
		s, err := breaker.Read(t.Context(), core.ConfigMaps(namespace))
		must(t, err)
		return s
	}
	written := func() int {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		must(t, events.Run(ctx))
		list, err := core.Events(covered).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=" + eventReason + ",involvedObject.name=a"})
		must(t, err)
		return len(list.Items)
	}
	create := func() types.UID {
		d := newAgentDeployment("a", "")
		stored, err := c.api.AppsV1().Deployments(covered).Create(t.Context(), d, metav1.CreateOptions{})
		must(t, err)
		return stored.UID
	}
	uid := create()
	forged := deletion(t, uid)
	if got := validateRequest(t, a, forged); !got.Allowed {
		t.Fatalf("the forged review is refused, which tests nothing: %+v", got.Result)
	}
	other := deletion(t, "00000000-0000-4000-8000-000000000000")
	if got := validateRequest(t, a, other); got.Allowed || !state().Open {
		t.Fatalf("a second one does not open the breaker, which tests less: %+v, %+v", got, state())
	}
	confirmer.confirm(t.Context())
	if n := written(); n != 0 {
		t.Errorf("%d Events of an agent that is there still", n)
	}
	shift = confirmWithin
	confirmer.confirm(t.Context())
	if s := state(); s.Open || len(s.Counted) != 0 || s.Taken > 0 || written() != 0 {
		t.Errorf("after forged reviews: %+v, %d Events", s, written())
	}
	// The real one.
	shift = 0
	if got := validateRequest(t, a, forged); !got.Allowed {
		t.Fatalf("refused: %+v", got.Result)
	}
	must(t, c.api.AppsV1().Deployments(covered).Delete(t.Context(), "a", metav1.DeleteOptions{}))
	for range 3 {
		confirmer.confirm(t.Context())
	}
	shift = confirmWithin
	confirmer.confirm(t.Context())
	if s := state(); s.Open || len(s.Counted) != 1 || written() != 1 {
		t.Errorf("after a real deletion: %+v, %d Events", s, written())
	}
}
