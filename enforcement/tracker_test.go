package enforcement

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const sibling = "lifecycle-breaker"

// clock is set by hand; the ConfigMaps' times are the API server's.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func exampleFile(t *testing.T) *v1alpha1.LifecyclePolicy {
	t.Helper()
	file, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// system is the system's namespace on a real API server.
type system struct {
	kubernetes.Interface
	clock *clock
}

func (s *system) maps() clientcorev1.ConfigMapInterface { return s.CoreV1().ConfigMaps("default") }

func (s *system) tracker(t *testing.T, of ConfigMaps, file *v1alpha1.LifecyclePolicy) *Tracker {
	t.Helper()
	return NewTracker(Options{
		ConfigMaps: of, Sibling: sibling, Deployments: s.AppsV1().Deployments("default"), Server: "lifecycle-webhook",
		Policy: func() *v1alpha1.LifecyclePolicy { return file }, Now: s.clock.Now, Logger: slog.New(slog.DiscardHandler),
	})
}

func (s *system) create(t *testing.T, name string) {
	t.Helper()
	_ = s.maps().Delete(t.Context(), name, metav1.DeleteOptions{})
	if _, err := s.maps().Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func (s *system) data(t *testing.T) map[string]string {
	t.Helper()
	cm, err := s.maps().Get(t.Context(), Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm.Data
}

func TestTracker(t *testing.T) {
	cp := controlplane.StartForTest(t, controlplane.Options{})
	config := *cp.Config
	config.QPS = -1
	s := &system{Interface: kubernetes.NewForConfigOrDie(&config), clock: &clock{now: time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)}}
	const links = "user-agents.service-links"

	t.Run("without a record", func(t *testing.T) {
		tracker := s.tracker(t, s.maps(), exampleFile(t))
		tracker.sync(t.Context())
		if err := tracker.Check(); err == nil || !strings.Contains(err.Error(), Name) {
			t.Errorf("the check says %v, want it to name the ConfigMap", err)
		}
		times := tracker.RuleTimes("user-agents")
		if got, has := times["service-links"]; !has || !got.Since.IsZero() || !got.WarnOnly {
			t.Errorf("service-links after the start: %+v", got)
		}
		if _, has := times["volumes"]; has {
			t.Error("volumes, of the first revision, is not enforced on everybody")
		}
		s.clock.pass(warnTime)
		if got := tracker.RuleTimes("user-agents")["service-links"]; got.WarnOnly || !got.Since.IsZero() {
			t.Errorf("service-links later: %+v; want templates judged and every Pod tolerated", got)
		}
	})
	t.Run("a new installation enforces at once", func(t *testing.T) {
		s.create(t, sibling)
		s.create(t, Name)
		tracker := s.tracker(t, s.maps(), exampleFile(t))
		tracker.sync(t.Context())
		got := tracker.RuleTimes("user-agents")["service-links"]
		if got.WarnOnly || !got.Since.Equal(&metav1.Time{Time: s.clock.Now()}) || tracker.Check() != nil {
			t.Errorf("%+v, check %v", got, tracker.Check())
		}
	})
	t.Run("replicas that race agree, and a restart changes nothing", func(t *testing.T) {
		s.create(t, Name)
		if err := s.maps().Delete(t.Context(), sibling, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		trackers := make([]*Tracker, 8)
		for i := range trackers {
			trackers[i] = s.tracker(t, s.maps(), exampleFile(t))
			all.Go(func() { trackers[i].sync(t.Context()) })
		}
		all.Wait()
		before := s.data(t)
		want := stamp(s.clock.Now().Add(settleTime))
		if before[links] != want || before["user-agents.volumes"] != always {
			t.Errorf("the record is %v", before)
		}
		for i, tracker := range trackers {
			if got := tracker.RuleTimes("user-agents")["service-links"]; stamp(got.Since.Time) != want || !got.WarnOnly {
				t.Errorf("replica %d: %+v", i, got)
			}
		}
		s.clock.pass(2 * time.Minute)
		restarted := s.tracker(t, s.maps(), exampleFile(t))
		restarted.sync(t.Context())
		if after := s.data(t); after[links] != want {
			t.Errorf("after a restart service-links is enforced since %s, want %s", after[links], want)
		}
	})
	t.Run("older servers are waited for", func(t *testing.T) {
		d, err := s.AppsV1().Deployments("default").Create(t.Context(), serverDeployment(), metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		status := func(replicas, updated int32) {
			d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: replicas, UpdatedReplicas: updated}
			if d, err = s.AppsV1().Deployments("default").UpdateStatus(t.Context(), d, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		tracker := s.tracker(t, s.maps(), exampleFile(t))
		status(3, 2)
		tracker.sync(t.Context())
		want := stamp(s.clock.Now().Add(settleTime))
		if got := s.data(t)[links]; got != want {
			t.Errorf("service-links is enforced since %s, want %s: a Pod of the older version is there", got, want)
		}
		status(2, 2)
		s.clock.pass(2 * time.Minute)
		tracker.sync(t.Context())
		if got := s.data(t)[links]; got != want {
			t.Errorf("service-links is enforced since %s, want %s: no older one is there any more", got, want)
		}
		for range 3 {
			s.clock.pass(time.Minute)
			tracker.sync(t.Context())
		}
		if err := tracker.Check(); err != nil {
			t.Errorf("in the end: %v", err)
		}
		// An upgrade within minutes of the first installation: both ConfigMaps are new, and an older server answers.
		status(3, 1)
		s.create(t, sibling)
		s.create(t, Name)
		early := s.tracker(t, s.maps(), exampleFile(t))
		early.sync(t.Context())
		if got := early.RuleTimes("user-agents")["service-links"]; !got.WarnOnly {
			t.Errorf("service-links right after an upgrade of a new installation: %+v, want it to warn only", got)
		}
		status(2, 2)
		for range 5 {
			s.clock.pass(time.Minute)
			early.sync(t.Context())
		}
	})
	t.Run("what cannot be written does not count", func(t *testing.T) {
		warns := exampleFile(t)
		warns.Profiles[0].Rules.ServiceLinks.Enforcement = v1alpha1.Warn
		s.tracker(t, s.maps(), warns).sync(t.Context())
		before := s.data(t)
		if _, has := before[links]; has {
			t.Fatalf("a rule that is not enforced is in the record: %v", before)
		}
		tracker := s.tracker(t, readOnly{s.maps()}, exampleFile(t))
		tracker.sync(t.Context())
		if after := s.data(t); !maps.Equal(before, after) {
			t.Errorf("the record has changed to %v", after)
		}
		if err := tracker.Check(); err == nil || !strings.Contains(err.Error(), "no write") {
			t.Errorf("the check says %v", err)
		}
		if got, has := tracker.RuleTimes("user-agents")["service-links"]; !has || !got.Since.IsZero() || got.WarnOnly {
			t.Errorf("service-links: %+v, want no known time, since none is stored", got)
		}
	})
	t.Run("a record with mistakes is left alone", func(t *testing.T) {
		cm, err := s.maps().Get(t.Context(), Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		cm.Data[links] = "yesterday"
		if _, err := s.maps().Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		tracker := s.tracker(t, s.maps(), exampleFile(t))
		tracker.sync(t.Context())
		if err := tracker.Check(); err == nil || !strings.Contains(err.Error(), links) {
			t.Errorf("the check says %v, want it to name %s", err, links)
		}
		if got := s.data(t)[links]; got != "yesterday" {
			t.Errorf("it was overwritten by %s", got)
		}
	})
}

// readOnly are ConfigMaps that cannot be written.
type readOnly struct{ ConfigMaps }

func (readOnly) Update(context.Context, *corev1.ConfigMap, metav1.UpdateOptions) (*corev1.ConfigMap, error) {
	return nil, errors.New("no write")
}

func serverDeployment() *appsv1.Deployment {
	labels := map[string]string{"app": "server"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "lifecycle-webhook"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "server", Image: "server"}}},
			},
		},
	}
}
