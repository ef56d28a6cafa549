package integration

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// TestReaper shows what the two servers' reapers do between them, with the rights that the manifests give.
func TestReaper(t *testing.T) {
	t.Parallel()
	c := install(t, controlplane.Options{ControllerManager: true})
	if _, err := c.AddServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("owner references", func(t *testing.T) { testOwners(t, c) })
	t.Run("foreign claims", func(t *testing.T) { testForeignClaim(t, c) })
	t.Run("fresh Pod", func(t *testing.T) { testFreshPod(t, c) })
	t.Run("takeover", func(t *testing.T) { testTakeover(t, c) })
}

func testOwners(t *testing.T, c *cluster) {
	for _, tc := range []struct {
		userType  lifecycle.UserType
		wantOwned bool
	}{
		{lifecycle.Anonymous, true},
		{lifecycle.Free, false},
		{lifecycle.Paid, false},
		{lifecycle.Enterprise, false},
	} {
		name := "owner-" + string(tc.userType)
		storage, service := newClaim(name+"-data", name, ""), newService(name, name)
		c.create(t, storage)
		c.create(t, service)
		l := c.live(t, name, ofType(tc.userType), pod(mounting(storage.Name)))
		owned := func(o client.Object) bool { return owns(o, l) }
		eventually(t, "owned Service of "+name, func() (bool, error) {
			return owned(service), c.Client.Get(t.Context(), client.ObjectKeyFromObject(service), service)
		})
		eventually(t, "user type on the claim of "+name, func() (bool, error) {
			err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(storage), storage)
			return storage.Labels[lifecycle.LabelUserType] == string(tc.userType), err
		})
		if got := owned(storage); got != tc.wantOwned {
			t.Errorf("claim of user type %s: owned %t, want %t", tc.userType, got, tc.wantOwned)
		}
	}
}

// A claim that another agent mounts as well goes with neither.
func testForeignClaim(t *testing.T, c *cluster) {
	const name = "shares"
	storage := newClaim(name+"-data", "somebody-else", "")
	marker := newService(name, name)
	c.create(t, storage)
	c.create(t, marker)
	l := c.live(t, name, ofType(lifecycle.Anonymous))
	eventually(t, "owned Service", func() (bool, error) {
		return owns(marker, l), c.Client.Get(t.Context(), client.ObjectKeyFromObject(marker), marker)
	})
	c.get(t, storage)
	if len(storage.OwnerReferences) > 0 || storage.Labels[lifecycle.LabelUserType] != "" {
		t.Errorf("the claim of somebody else was changed: %+v", storage.ObjectMeta)
	}
}

// An enterprise agent that ended with 42 gets one fresh Pod, though two servers look on.
func testFreshPod(t *testing.T, c *cluster) {
	l := c.live(t, "fresh", ofType(lifecycle.Enterprise))
	l.exited(t, lifecycle.ExitIdle, time.Now().Add(-time.Minute)) // long enough for its sidecar to have been refused
	var second string
	eventually(t, "fresh Pod", func() (bool, error) {
		pods, err := c.podsOf(t, "fresh")
		for i := range pods {
			if pods[i].UID != l.pod.UID && pods[i].DeletionTimestamp == nil {
				second = pods[i].Name
			}
		}
		return second != "", err
	})
	c.get(t, l.deployment)
	if l.deployment.DeletionTimestamp != nil {
		t.Error("the agent itself is being deleted")
	}
	// The other one must not do it again for what it may have seen late.
	for range 20 {
		pods, err := c.podsOf(t, "fresh")
		if err != nil || len(pods) == 0 || pods[len(pods)-1].Name != second && pods[0].Name != second {
			t.Fatalf("the fresh Pod %s was replaced as well: %v, %v", second, pods, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// When the server that leads is killed, the other one goes on with the work; admission does not notice.
func testTakeover(t *testing.T, c *cluster) {
	before := c.leader(t)
	for _, s := range c.Servers() {
		if !strings.HasSuffix(before, fmt.Sprintf("-%d", s.PID())) {
			continue
		}
		if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = c.RemoveServer(s) // which did not end well, of course
	}
	if len(c.Servers()) != 1 {
		t.Fatalf("no server is the leader, %s", before)
	}
	killed := time.Now()
	storage := newClaim("takeover-data", "takeover", "")
	c.create(t, storage)
	l := c.live(t, "takeover", ofType(lifecycle.Anonymous), pod(mounting(storage.Name)))
	t.Logf("an agent was admitted %s after the kill", time.Since(killed))
	eventually(t, "owned claim", func() (bool, error) {
		return owns(storage, l), c.Client.Get(t.Context(), client.ObjectKeyFromObject(storage), storage)
	})
	t.Logf("its claim was owned %s after the kill", time.Since(killed))
	if after := c.leader(t); after == before {
		t.Errorf("the Lease is still held by %s, which was killed", before)
	}
}

// leader is who holds the reaper's Lease.
func (c *cluster) leader(t *testing.T) string {
	t.Helper()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: installation.SystemNamespace, Name: reaper.LeaseName}}
	eventually(t, "leader", func() (bool, error) {
		err := c.Client.Get(t.Context(), client.ObjectKeyFromObject(lease), lease)
		if err == nil && lease.Spec.HolderIdentity == nil {
			err = errors.New("nobody holds the Lease")
		}
		return err == nil, err
	})
	return *lease.Spec.HolderIdentity
}

func (c *cluster) podsOf(t *testing.T, name string) ([]corev1.Pod, error) {
	t.Helper()
	var pods corev1.PodList
	err := c.Client.List(t.Context(), &pods, client.InNamespace(agents), client.MatchingLabels{lifecycle.LabelDeployment: name})
	return pods.Items, err
}

func owns(o client.Object, l *life) bool {
	owners := o.GetOwnerReferences()
	return len(owners) == 1 && owners[0].UID == l.deployment.UID
}

// mounting mounts a claim.
func mounting(claim string) func(*corev1.PodSpec) {
	return func(spec *corev1.PodSpec) {
		spec.Volumes = append(spec.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim},
		}})
	}
}
