package fleet

import (
	"errors"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// TestEntry has the states of an agent whose manager answers, or does not, and whatever keeps it.
func TestEntry(t *testing.T) {
	j := judgeBy(t)
	renewed, _ := j.Renewed(namespace, plain(good, func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "alice-data"},
		}}}
	}))
	deadline := now.Add(30 * time.Second)
	says := func(state lifecycle.State, keepers ...idle.Keeper) said {
		return said{status: &idle.Status{
			State: state, Since: now.Add(-time.Minute), IdleShutdown: true, Deadline: &deadline, KeptAliveBy: keepers,
			LastActivity: idle.Activity{Source: "chat", At: now.Add(-3 * time.Minute)},
		}}
	}
	none := &surroundings{}
	ready := runningPod("p", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}})
	ready.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now)}}
	looping := runningPod("p", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: "back-off 5m0s"}})
	unknown := says(lifecycle.Running)
	unknown.status.IdleShutdown, unknown.status.Deadline = false, nil
	for name, tc := range map[string]struct {
		pod        *corev1.Pod
		answer     said
		around     *surroundings
		change     func(*appsv1.Deployment)
		state      lifecycle.State
		stops      bool
		reason     string
		never      string
		protected  string
		scaler     string
		storage    string
		storageWhy string
	}{
		"runs": {
			pod: &ready, answer: says(lifecycle.Running), state: lifecycle.Running, stops: true, reason: `last active ("chat") 3m0s ago`, storage: "kept",
		},
		"kept alive": {
			pod: &ready, answer: says(lifecycle.Running, idle.Keeper{Kind: "policy"}, idle.Keeper{Kind: "trigger", ID: "inbox", Reason: "waits"}, idle.Keeper{Kind: "activity"}),
			state: lifecycle.Running, stops: true, reason: `kept alive by trigger "inbox" ("waits")`, storage: "kept",
		},
		"quiet for long, and not warned": { // however long that is: the tier decides, not the tool
			pod: &ready, answer: says(lifecycle.Running), state: lifecycle.Running, stops: true, reason: `last active ("chat") 3m0s ago`, storage: "kept",
		},
		"warned": {
			pod: &ready, answer: says(lifecycle.Idle), state: lifecycle.Idle, stops: true, reason: `last active ("chat") 3m0s ago, and warned`, storage: "kept",
		},
		"stops": {pod: &ready, answer: says(lifecycle.Shutdown), state: lifecycle.Shutdown, reason: "it says that it is stopping", storage: "kept"},
		"does not answer": {
			pod: &ready, answer: said{err: errors.New("refused")}, state: lifecycle.Running, reason: "Pod p is ready; what it does is not known: refused", storage: "kept",
		},
		"crashes": {pod: &looping, state: lifecycle.Created, reason: "Pod p: container agent: CrashLoopBackOff: back-off 5m0s", storage: "kept"},
		"anonymous": {
			pod: &ready, answer: says(lifecycle.Running), change: func(d *appsv1.Deployment) { d.Labels[lifecycle.LabelUserType] = string(lifecycle.Anonymous) },
			state: lifecycle.Running, stops: true, reason: `last active ("chat") 3m0s ago`, storage: "temporary",
		},
		"anonymous, its claim protected": {
			pod: &ready, answer: says(lifecycle.Running), change: func(d *appsv1.Deployment) { d.Labels[lifecycle.LabelUserType] = string(lifecycle.Anonymous) },
			around: &surroundings{protected: map[objectKey]string{{namespace, "alice-data"}: `do-not-reap is "true"`}},
			state:  lifecycle.Running, stops: true, reason: `last active ("chat") 3m0s ago`, storage: "kept", storageWhy: `claim alice-data: do-not-reap is "true"`,
		},
		"enterprise": {
			pod: &ready, answer: says(lifecycle.Running), change: func(d *appsv1.Deployment) { d.Labels[lifecycle.LabelUserType] = string(lifecycle.Enterprise) },
			state: lifecycle.Running, stops: true, reason: `last active ("chat") 3m0s ago`, storage: "kept", never: "agents of user type enterprise never stop",
		},
		"shutdown switched off": {
			pod: &ready, answer: unknown, state: lifecycle.Running, reason: `last active ("chat") 3m0s ago`, storage: "kept",
			never: "its lifecycle manager says that idle shutdown is off",
		},
		"protected": {
			pod: &ready, answer: says(lifecycle.Idle), change: func(d *appsv1.Deployment) { d.Labels[lifecycle.AnnotationDoNotReap] = "yes" },
			state: lifecycle.Idle, stops: true, reason: `last active ("chat") 3m0s ago, and warned`, storage: "kept", protected: `label do-not-reap is "yes"`,
		},
		"scaled to 0 by an autoscaler": {
			change: func(d *appsv1.Deployment) { d.Spec.Replicas = new(int32(0)) },
			around: &surroundings{scalers: map[objectKey]string{{namespace, "alice"}: "keda-hpa-alice"}},
			state:  lifecycle.Created, reason: "its Deployment is scaled to 0", storage: "kept", scaler: "HorizontalPodAutoscaler keda-hpa-alice",
		},
		"scaled to 0 by a night scaler": {
			change: func(d *appsv1.Deployment) {
				d.Spec.Replicas = new(int32(0))
				metav1.SetMetaDataAnnotation(&d.ObjectMeta, "downscaler/original-replicas", "1")
			},
			state: lifecycle.Created, reason: "its Deployment is scaled to 0", storage: "kept", scaler: "kube-downscaler",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := renewed.DeepCopy()
			d.Name = "alice"
			if tc.change != nil {
				tc.change(d)
			}
			around := none
			if tc.around != nil {
				around = tc.around
			}
			e := j.entry(Namespace{Name: namespace}, d, tc.pod, tc.answer, around, now)
			if e.State != tc.state || !e.StopsAt.IsZero() != tc.stops || e.Reason != tc.reason || e.NeverStops != tc.never || e.Protected != tc.protected ||
				e.Scaler != tc.scaler || e.Storage != tc.storage || e.StorageProtected != tc.storageWhy {
				t.Errorf("%+v", e)
			}
		})
	}
}
