package gateway

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

func TestStatusOf(t *testing.T) {
	at := func(minute int) metav1.Time { return metav1.NewTime(time.Date(2026, 1, 2, 3, minute, 0, 0, time.UTC)) }
	deployment := func(change func(*appsv1.Deployment)) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "agent-a", CreationTimestamp: at(1), Labels: map[string]string{lifecycle.LabelUserType: "free"}}}
		if change != nil {
			change(d)
		}
		return d
	}
	pod := func(ready corev1.ConditionStatus, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", CreationTimestamp: at(2)}}
		p.Status.PodIP = "192.0.2.1"
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready, LastTransitionTime: at(3)}}
		p.Spec.Containers = []corev1.Container{{Name: lifecycle.AgentContainer}, {Name: lifecycle.SidecarContainer}}
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: lifecycle.AgentContainer}}
		if change != nil {
			change(p)
		}
		return p
	}
	ended := func(code int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State.Terminated = &corev1.ContainerStateTerminated{ExitCode: code, FinishedAt: at(5)}
		}
	}
	meshed := func(p *corev1.Pod) {
		ended(lifecycle.ExitIdle)(p)
		p.Spec.Containers = []corev1.Container{
			{Name: "mesh-proxy"},
			{Name: "web", VolumeMounts: []corev1.VolumeMount{{Name: lifecycle.RunVolume, MountPath: lifecycle.RunDir}}},
			{Name: lifecycle.SidecarContainer},
		}
		p.Status.ContainerStatuses[0].Name = "web"
		if _, err := slim(p); err != nil {
			t.Fatal(err)
		}
	}
	alone := func(p *corev1.Pod) {
		ended(lifecycle.ExitIdle)(p)
		p.Spec.Containers[0].Name, p.Status.ContainerStatuses[0].Name = "web", "web"
	}
	for _, tt := range []struct {
		name   string
		d      *appsv1.Deployment
		pod    *corev1.Pod
		said   saying
		state  lifecycle.State
		ready  bool
		since  int
		reason string
	}{
		{"ended, its container called otherwise", deployment(nil), pod("True", alone), saying{}, lifecycle.Shutdown, false, 5, "idle"},
		{"ended, behind a mesh's container", deployment(nil), pod("True", meshed), saying{}, lifecycle.Shutdown, false, 5, "idle"},
		{"nothing", nil, nil, saying{}, lifecycle.Deleted, false, 0, "no Deployment"},
		{"Pod of no Deployment", nil, pod("True", nil), saying{}, lifecycle.Deleted, false, 0, "no Deployment"},
		{"made", deployment(nil), nil, saying{}, lifecycle.Created, false, 1, "no Pod yet"},
		{"scaled down", deployment(func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) }), nil, saying{}, lifecycle.Created, false, 0, "scaled to 0"},
		{"starting", deployment(nil), pod("False", nil), saying{}, lifecycle.Created, false, 3, "p is not ready"},
		{"no image", deployment(nil), pod("False", func(p *corev1.Pod) {
			p.Status.ContainerStatuses[0].State.Waiting = &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}
		}), saying{}, lifecycle.Created, false, 3, "ImagePullBackOff"},
		{"no room", deployment(nil), pod("False", func(p *corev1.Pod) {
			p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodScheduled, Status: "False", Message: "0/3 nodes"})
		}), saying{}, lifecycle.Created, false, 3, "not scheduled: 0/3 nodes"},
		{"crashed", deployment(nil), pod("False", ended(1)), saying{}, lifecycle.Created, false, 3, "exit code 1"},
		{"ready", deployment(nil), pod("True", nil), saying{}, lifecycle.Running, true, 3, "p is ready"},
		{"says that it runs", deployment(nil), pod("True", nil), saying{state: lifecycle.Running, since: at(4).Time}, lifecycle.Running, true, 4, "active"},
		{"says that it is idle", deployment(nil), pod("True", nil), saying{state: lifecycle.Idle, since: at(4).Time}, lifecycle.Idle, true, 4, "idle"},
		{"says that it stops", deployment(nil), pod("True", nil), saying{state: lifecycle.Shutdown, since: at(4).Time}, lifecycle.Shutdown, false, 4, "stopping"},
		{"says that it stops, and closes its port", deployment(nil), pod("False", nil), saying{state: lifecycle.Shutdown, since: at(4).Time}, lifecycle.Shutdown, false, 4, "stopping"},
		{"has stopped, and crashed", deployment(nil), pod("False", ended(1)), saying{state: lifecycle.Shutdown, since: at(4).Time}, lifecycle.Created, false, 3, "exit code 1"},
		{"not ready, whatever it says", deployment(nil), pod("False", nil), saying{state: lifecycle.Running, since: at(4).Time}, lifecycle.Created, false, 3, "not ready"},
		{"ended idle", deployment(nil), pod("False", ended(42)), saying{}, lifecycle.Shutdown, false, 5, "was idle"},
		{"ended idle, said late", deployment(nil), pod("True", ended(42)), saying{}, lifecycle.Shutdown, false, 5, "was idle"},
		{"Pod going", deployment(nil), pod("True", func(p *corev1.Pod) { p.DeletionTimestamp = new(at(6)) }), saying{}, lifecycle.Created, false, 6, "being deleted"},
		{"going", deployment(func(d *appsv1.Deployment) { d.DeletionTimestamp = new(at(6)) }), pod("True", nil), saying{}, lifecycle.Shutdown, false, 6, "being deleted"},
	} {
		s := statusOf(tt.d, tt.pod, tt.said)
		since := 0
		if !s.Since.IsZero() {
			since = s.Since.Minute()
		}
		if s.State != tt.state || s.Ready != tt.ready || since != tt.since || !strings.Contains(s.Reason, tt.reason) {
			t.Errorf("%s: %+v, want %s since %d, ready %t, %q", tt.name, s, tt.state, tt.since, tt.ready, tt.reason)
		}
	}
}

// An agent that will not go says why, and so does storage that stays because it is protected.
func TestStays(t *testing.T) {
	name := Name("ada")
	for what, tc := range map[string]struct {
		userType       lifecycle.UserType
		change         func(d *appsv1.Deployment, claim *corev1.PersistentVolumeClaim)
		stays, storage string
	}{
		"goes":       {lifecycle.Anonymous, func(*appsv1.Deployment, *corev1.PersistentVolumeClaim) {}, "", storageTemporary},
		"enterprise": {lifecycle.Enterprise, func(*appsv1.Deployment, *corev1.PersistentVolumeClaim) {}, "agents of user type enterprise never stop", storageTemporary},
		"protected": {
			lifecycle.Anonymous, func(d *appsv1.Deployment, _ *corev1.PersistentVolumeClaim) {
				metav1.SetMetaDataAnnotation(&d.ObjectMeta, "do-not-reap", "true")
			},
			`its Deployment is protected: do-not-reap is "true"`, storageTemporary,
		},
		"by a label":          {lifecycle.Anonymous, func(d *appsv1.Deployment, _ *corev1.PersistentVolumeClaim) { d.Labels["do-not-reap"] = "yes" }, `its Deployment is protected: label do-not-reap is "yes"`, storageTemporary},
		"its claim protected": {lifecycle.Anonymous, func(_ *appsv1.Deployment, c *corev1.PersistentVolumeClaim) { c.Labels["do-not-reap"] = "true" }, "", storageKept},
		"on its way out": {lifecycle.Enterprise, func(d *appsv1.Deployment, _ *corev1.PersistentVolumeClaim) {
			d.DeletionTimestamp, d.Finalizers = new(metav1.Now()), []string{"foregroundDeletion"}
		}, "", storageTemporary},
	} {
		t.Run(what, func(t *testing.T) {
			objects := readyAgent("ada", tc.userType)
			claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{
				Namespace: "agents", Name: claimName(name), Annotations: map[string]string{lifecycle.AnnotationUser: escapeUser("ada")},
				Labels: map[string]string{lifecycle.LabelUserType: string(tc.userType)},
			}}
			tc.change(objects[0].(*appsv1.Deployment), claim)
			g, _ := newGateway(t, "192.0.2.1:1", func(o *Options) { o.Tiers = allGoes{} }, append(objects, claim)...)
			s, _, err := g.see("ada")
			if err != nil {
				t.Fatal(err)
			}
			if s = g.withStorage(t.Context(), s); s.Stays != tc.stays || s.Storage != tc.storage {
				t.Errorf("stays %q, storage %q, want %q and %q", s.Stays, s.Storage, tc.stays, tc.storage)
			}
		})
	}
}

// allGoes deletes the storage of everybody.
type allGoes struct{ noTiers }

func (allGoes) DeletesStorage(lifecycle.UserType) bool { return true }
