package integration

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/breaker"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// openedAfterTheFirst is a breaker that an operator opens when it has let one deletion pass.
type openedAfterTheFirst struct {
	*breaker.Breaker
	once sync.Once
	open func()
}

// Take implements reaper.Breaker.
func (b *openedAfterTheFirst) Take(ctx context.Context, key string) error {
	err := b.Breaker.Take(ctx, key)
	if err == nil {
		b.once.Do(b.open)
	}
	return err
}

// testReapersStoppedByHand: while an operator holds the breaker open, no reaper deletes anything, of whatever kind,
// also one that is in the middle of a pass; what cannot be read holds as well.
func testReapersStoppedByHand(t *testing.T, c *cluster) {
	const ns, messy = "agent-stopped", "agent-stopped-messy"
	r := c.newReaping(t)
	r.policy.Reaper.Parallelism = 1
	core, err := clientcorev1.NewForConfig(r.config)
	if err != nil {
		t.Fatal(err)
	}
	shared := breaker.New(breaker.Options{
		ConfigMaps: core.ConfigMaps(installation.SystemNamespace), Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Limits:  func() breaker.Limits { return breaker.Limits{Burst: 60, PerMinute: 30} },
		Metrics: breaker.NewMetrics(prometheus.NewRegistry()),
	})
	holds := func(o *reaper.Options) { o.Breaker = shared }
	open := func() {
		if _, _, err := breaker.Open(t.Context(), c.breakers(t), "alice", "look at v2", time.Now()); err != nil {
			t.Error(err)
		}
	}
	release := func() {
		t.Helper()
		if _, _, err := breaker.Release(t.Context(), c.breakers(t), "bob", time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		_, _, _ = breaker.Release(context.WithoutCancel(t.Context()), c.breakers(t), "test", time.Now())
	})

	lives := []*life{c.live(t, "stopped-a"), c.live(t, "stopped-b")}
	for _, l := range lives {
		l.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Hour))
	}
	claim := newClaim("stopped-data", "stopped-gone", lifecycle.Anonymous)
	c.create(t, claim)
	c.roleNamespace(t, messy)
	c.noPods(t, messy)
	c.create(t, agent("wanted", func(d *appsv1.Deployment) { d.Namespace = messy })) // or the namespace would go
	leftover := configMap(messy, "stopped-scratch", func(o *metav1.ObjectMeta) {
		metav1.SetMetaDataAnnotation(o, lifecycle.AnnotationExpiresAt, time.Now().Add(-time.Minute).Format(time.RFC3339))
	})
	if err := c.inPod(t, messy, "worker-1", "0123").Create(t.Context(), leftover); err != nil {
		t.Fatal(err)
	}
	c.roleNamespace(t, ns)
	c.furnish(t, ns)
	all := []client.Object{
		lives[0].deployment, lives[1].deployment, claim, leftover,
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "worker-data"}},
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "worker"}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}},
	}
	left := func() int {
		t.Helper()
		n := 0
		for _, o := range all {
			if !c.deleting(t, o) {
				n++
			}
		}
		return n
	}

	open()
	r.once(t, holds)
	r.clock.pass(61 * time.Minute)
	var report *reaper.Report
	for range 4 {
		report = r.once(t, holds)
	}
	if n := left(); n != len(all) {
		t.Errorf("%d of %d objects are left while the breaker is open", n, len(all))
	}
	if report.Failed() {
		t.Errorf("an open breaker is no failure: %+v", report)
	}
	for _, of := range []struct{ kind, name, verdict string }{
		{"Deployment", "stopped-a", "kept"}, {"PersistentVolumeClaim", "stopped-data", "kept"}, {"ConfigMap", "stopped-scratch", "kept"},
		{"Namespace", ns, "ready"},
	} {
		if got, why := verdict(report, of.kind, of.name), reasonOf(report, of.kind, of.name); got != of.verdict || !strings.Contains(why, "opened by alice: look at v2") {
			t.Errorf("%s %s: %s, %q; want it %s by the breaker", of.kind, of.name, got, why, of.verdict)
		}
	}

	stopped := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}
	c.get(t, stopped)
	if stopped.Annotations[lifecycle.AnnotationReaping] != "" {
		t.Error("the namespace is marked, which closes it for Pods, while the breaker is open")
	}

	// As after a broken edit of the ConfigMap; a lost right to read it looks the same.
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: breaker.Name}}
	c.get(t, cm)
	was := cm.Data
	cm.Data = map[string]string{"state": "ajar"}
	if err := c.Client.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	report = r.once(t, holds)
	if n := left(); n != len(all) || !report.Failed() {
		t.Errorf("%d of %d objects are left while the breaker cannot be read; want all, and a failed pass: %+v", n, len(all), report)
	}
	cm.Data = was
	if err := c.Client.Update(t.Context(), cm); err != nil {
		t.Fatal(err)
	}
	release()

	r.once(t, func(o *reaper.Options) { o.Breaker = &openedAfterTheFirst{Breaker: shared, open: open} })
	if n := left(); n != len(all)-1 {
		t.Errorf("%d of %d objects are left; want one deleted, and nothing after it", n, len(all))
	}
	release()
	for range 4 {
		report = r.once(t, holds)
	}
	if report.Failed() {
		t.Errorf("after the release: %+v", report)
	}
	c.gone(t, all...)
}

// reasonOf is why a report says of an object what it says last.
func reasonOf(report *reaper.Report, kind, name string) (reason string) {
	for i := range report.Reapers {
		for _, d := range report.Reapers[i].Decisions {
			if d.Kind == kind && d.Name == name {
				reason = d.Reason
			}
		}
	}
	return reason
}
