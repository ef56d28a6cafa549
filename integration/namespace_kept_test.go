package integration

import (
	"context"
	"log/slog"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/reaper"
)

// archiver keeps as the server does.
type archiver struct{ *archive.Archive }

func (a archiver) Save(ctx context.Context, namespace *corev1.Namespace, keep time.Duration, secrets bool) error {
	return a.Archive.Save(ctx, namespace, archive.Keep{For: keep, Secrets: secrets})
}

// testKeptBeforeReaped: the volumes of claims are kept before anything is deleted that would take them along, and
// before anything that is being deleted already has gone: a claim that its workload controls, and one that a user has
// deleted.
func testKeptBeforeReaped(t *testing.T, r *reaping) {
	const name = "agent-keeper"
	r.policy.Reaper.Namespaces.Retain.Duration = 72 * time.Hour
	clients, err := archive.ClientsFor(r.config)
	if err != nil {
		t.Fatal(err)
	}
	keeps := func(o *reaper.Options) {
		o.Archiver = archiver{archive.New(archive.Options{
			Clients: clients, Namespace: installation.SystemNamespace, Now: r.clock.Now, Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
		})}
	}
	c := &archives{Client: r.Client, plane: r.plane}
	r.roleNamespace(t, name)
	r.furnish(t, name)
	worker := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "worker"}}
	r.get(t, worker)
	owned := claimOf(name, "owned")
	owned.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(worker, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	deleted := claimOf(name, "deleted")
	deleted.Finalizers = []string{"e2e.lifecycle.dexorder.io/hold"}
	c.make(t, volumeFor(name, "owned"), owned, volumeFor(name, "deleted"), deleted)
	c.awaitBound(t, name, "owned")
	c.awaitBound(t, name, "deleted")

	r.once(t, keeps)
	r.clock.pass(61 * time.Minute)
	for _, want := range []string{"ready", "marked"} {
		if got := verdict(r.once(t, keeps), "Namespace", name); got != want {
			t.Fatalf("verdict %q, want %q", got, want)
		}
	}
	if err := r.Client.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	_, _ = r.reaper(t, keeps).Once(ctx) // waits for the claim that is held
	for _, claim := range []string{"owned", "deleted"} {
		if pv := c.volume(t, name+"-"+claim); pv.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimRetain {
			t.Errorf("the volume of claim %s has the reclaim policy %s", claim, pv.Spec.PersistentVolumeReclaimPolicy)
		}
	}
	r.get(t, deleted)
	deleted.Finalizers = nil
	if err := r.Client.Update(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	r.once(t, keeps)
	eventually(t, "end of the namespace", func() (bool, error) { return r.namespace(t, name) == nil, nil })
	for _, claim := range []string{"owned", "deleted"} {
		eventually(t, "kept volume of claim "+claim, func() (bool, error) {
			return c.volume(t, name+"-"+claim).Status.Phase == corev1.VolumeReleased, nil
		})
		if err := r.Client.Get(t.Context(), client.ObjectKey{Namespace: name, Name: claim}, &corev1.PersistentVolumeClaim{}); !apierrors.IsNotFound(err) {
			t.Errorf("claim %s: %v, want it gone", claim, err)
		}
	}
	if list, err := archive.New(archive.Options{Clients: clients, Namespace: installation.SystemNamespace, Now: r.clock.Now}).List(t.Context()); err != nil ||
		len(list) != 1 || list[0].Volumes != 2 || !list[0].LeftOutNoted {
		t.Errorf("the archives are %+v, %v", list, err)
	}
}
