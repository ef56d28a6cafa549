//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/breaker"
)

// releaseBreaker begins with a full bucket, whatever the tests before have taken.
func releaseBreaker(t *testing.T) {
	t.Helper()
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	cm, err := maps.Get(t.Context(), breaker.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data = nil
	if _, err := maps.Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// together makes n agents that all end with 42 at the same time.
func together(t *testing.T, prefix string, n int, at time.Time) []*life {
	t.Helper()
	lives := make([]*life, n)
	for i := range lives {
		lives[i] = &life{t: t, name: fmt.Sprintf("%s-%02d", prefix, i)}
		lives[i].create(small, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Command = []string{"/bin/e2e-agent", "until", at.UTC().Format(time.RFC3339), "42"}
			d.Spec.Template.Spec.Containers[0].ReadinessProbe = nil
		})
	}
	return lives
}

// small lets many agents fit on the node.
func small(d *appsv1.Deployment) {
	resources := &d.Spec.Template.Spec.Containers[0].Resources
	resources.Requests = resources.Limits.DeepCopy()
	resources.Requests["cpu"] = resource.MustParse("1m")
	resources.Requests["memory"] = resource.MustParse("8Mi")
}

func remaining(ctx context.Context, prefix string) (int, error) {
	list, err := client.AppsV1().Deployments(agentsNamespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	n := 0
	for i := range list.Items {
		if strings.HasPrefix(list.Items[i].Name, prefix+"-") && list.Items[i].DeletionTimestamp == nil {
			n++
		}
	}
	return n, nil
}

// TestFleet: fifty agents that are idle at once are all gone, and only they.
func TestFleet(t *testing.T) {
	releaseBreaker(t)
	bystander := bear(t, "bystander")
	at := time.Now().Add(75 * time.Second)
	fleet := together(t, "fleet", 50, at)
	time.Sleep(time.Until(at))
	var all sync.WaitGroup
	for _, l := range fleet {
		all.Go(l.expectGone)
	}
	all.Wait()
	bystander.expectKept()
}

// TestBreaker: a bad image that makes more agents end at once than may go does not erase them: the breaker opens, nobody
// else goes, and an operator can release it.
func TestBreaker(t *testing.T) {
	releaseBreaker(t)
	const agents, burst = 80, 60 // a node runs 110 Pods at most
	maps := client.CoreV1().ConfigMaps(systemNamespace)
	release := func(ctx context.Context) {
		if _, _, err := breaker.Release(ctx, maps, "e2e", time.Now()); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(func() { release(context.WithoutCancel(t.Context())) }) // the tests after this one need it closed
	fleet := together(t, "bad", agents, time.Now().Add(100*time.Second))
	eventually(t, 4*time.Minute, func(ctx context.Context) error {
		state, err := breaker.Read(ctx, maps)
		if err != nil || !state.Open {
			return fmt.Errorf("the breaker is closed: %+v, %w", state, err)
		}
		return nil
	})
	time.Sleep(10 * time.Second) // those that were let go ask again if their request was cut off
	left, err := remaining(t.Context(), "bad")
	if err != nil || left == 0 || agents-left < burst {
		t.Fatalf("%d of %d agents are left, %v; %d may go at once", left, agents, err, burst)
	}
	t.Logf("%d of %d agents went, then the breaker opened", agents-left, agents)
	time.Sleep(10 * time.Second)
	if now, err := remaining(t.Context(), "bad"); err != nil || now != left {
		t.Errorf("with an open breaker %d of %d agents went, %v", left-now, left, err)
	}
	release(t.Context())
	var all sync.WaitGroup
	for _, l := range fleet {
		all.Go(l.expectGone)
	}
	all.Wait()
}
