package reaper

import (
	"fmt"
	"maps"
	"math/rand"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
)

const (
	activityKey  = lifecycle.AnnotationLastPodActivity
	idleKey      = lifecycle.AnnotationIdleSince
	sightingsKey = lifecycle.AnnotationSightings
	reapingKey   = lifecycle.AnnotationReaping
	phaseKey     = lifecycle.AnnotationPhase
	unhealthyKey = lifecycle.AnnotationUnhealthy
	keepKey      = lifecycle.AnnotationDoNotReap
	keepUntilKey = lifecycle.AnnotationDoNotReapUntil
)

// noon is when the decisions of these tests are made; their namespaces were created the day before.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// stamp is some time before noon, as annotations have it.
func stamp(before time.Duration) string { return noon.Add(-before).Format(time.RFC3339) }

// quiet is a namespace that has been idle for two hours, changed.
func quiet(changes ...func(*namespace)) *namespace {
	n := &namespace{
		object: object{name: "agent-ceo", uid: "1", created: noon.Add(-24 * time.Hour)},
		labels: map[string]string{lifecycle.LabelAgentRole: "ceo", lifecycle.LabelOrg: "dexorder"},
		annotations: map[string]string{
			activityKey: stamp(3 * time.Hour), idleKey: stamp(2 * time.Hour), phaseKey: stamp(2*time.Hour) + " idle",
		},
	}
	for _, change := range changes {
		change(n)
	}
	return n
}

// labelled sets a label.
func labelled(key, value string) func(*namespace) {
	return func(n *namespace) { n.labels[key] = value }
}

// annotated sets annotations, in pairs; the value "-" takes one off.
func annotated(pairs ...string) func(*namespace) {
	return func(n *namespace) {
		for i := 0; i < len(pairs); i += 2 {
			if n.annotations[pairs[i]] = pairs[i+1]; pairs[i+1] == "-" {
				delete(n.annotations, pairs[i])
			}
		}
	}
}

// aPod was created and became ready so long ago.
func aPod(age time.Duration, changes ...func(*corev1.Pod)) *pod {
	at := metav1.NewTime(noon.Add(-age))
	o := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "agent-ceo", Name: "worker-1", UID: "p1", CreationTimestamp: at},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: at}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}},
		},
	}
	for _, change := range changes {
		change(o)
	}
	return podOf(o)
}

func inPhase(phase corev1.PodPhase) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Phase = phase }
}

func notReady(p *corev1.Pod) { p.Status.Conditions[0].Status = corev1.ConditionFalse }

func neverReady(p *corev1.Pod) { p.Status.Conditions = nil }

func crashing(p *corev1.Pod) {
	notReady(p)
	p.Status.ContainerStatuses[0].State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}
}

func crashingInit(p *corev1.Pod) {
	notReady(p)
	p.Status.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: "prepare", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
	}}
}

func endedAgo(ago time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.ContainerStatuses[0].State = corev1.ContainerState{
			Terminated: &corev1.ContainerStateTerminated{FinishedAt: metav1.NewTime(noon.Add(-ago))},
		}
	}
}

func onItsWay(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: noon} }

func protectedPod(p *corev1.Pod) { p.Annotations = map[string]string{keepKey: "yes"} }

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "agent-ceo", Name: name, UID: "w1"}
}

func controlledBy(m metav1.ObjectMeta, apiVersion, kind, name string) metav1.ObjectMeta {
	m.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: name, UID: "o1", Controller: new(true)}}
	return m
}

func works(o runtime.Object) *workload { return recordOf(o).(*workload) }

func deployment(replicas int32) *workload {
	return works(&appsv1.Deployment{ObjectMeta: meta("worker"), Spec: appsv1.DeploymentSpec{Replicas: &replicas}})
}

// scaledDown is the Deployment without replicas, changed.
func scaledDown(change func(*metav1.ObjectMeta)) *workload {
	d := &appsv1.Deployment{ObjectMeta: meta("worker"), Spec: appsv1.DeploymentSpec{Replicas: new(int32(0))}}
	change(&d.ObjectMeta)
	return works(d)
}

func scalerFor(kind, name string, changes ...func(*metav1.ObjectMeta)) *scaler {
	o := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("hpa")}
	o.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: kind, Name: name}
	for _, change := range changes {
		change(&o.ObjectMeta)
	}
	return recordOf(o).(*scaler)
}

func leaving(m *metav1.ObjectMeta) { m.DeletionTimestamp = &metav1.Time{Time: noon} }

func aClaim(annotations map[string]string) *claim {
	m := meta("worker-data")
	m.Annotations = annotations
	return recordOf(&corev1.PersistentVolumeClaim{ObjectMeta: m}).(*claim)
}

// decided is what a test expects. "-" stands for an annotation that is taken off.
type decided struct {
	phase  Phase
	reason string
	writes map[string]string
	stuck  bool
}

func TestDecideNamespace(t *testing.T) {
	const twoHours = "nothing has run there since 2026-05-01T10:00:00Z, and nothing wants to"
	now := stamp(0)
	wantsNone := func(what string) decided {
		return decided{phase: Unhealthy, reason: what + " wants a Pod and has none", writes: map[string]string{
			idleKey: "-", unhealthyKey: now + " " + what + " wants a Pod and has none", phaseKey: now + " unhealthy",
		}}
	}
	active := func(reason string) decided {
		return decided{phase: Active, reason: reason, writes: map[string]string{idleKey: "-", phaseKey: now + " active"}}
	}
	since := func(at, activity string) decided {
		d := decided{phase: Idle, reason: "nothing has run there since " + at + ", which is less than 1h0m0s ago"}
		if activity != "" {
			d.writes = map[string]string{activityKey: activity}
		}
		return d
	}
	protected := func(reason string) decided {
		return decided{phase: Protected, reason: reason, writes: map[string]string{idleKey: "-", phaseKey: now + " protected"}}
	}
	ready := func(writes map[string]string) decided {
		return decided{phase: Ready, reason: twoHours + "; seen so by 1 of 2 passes", writes: writes}
	}
	marked := func(at string) func(*namespace) {
		return annotated(reapingKey, at, phaseKey, at+" marked")
	}
	shown := func(phase string) func(*namespace) { return annotated(phaseKey, stamp(2*time.Hour)+" "+phase) }

	for name, tc := range map[string]struct {
		facts  facts
		change func(*v1alpha1.Reaper)
		want   decided
	}{
		// What something else scales to 0 and back.
		"a HorizontalPodAutoscaler of what has no replicas": {
			facts: facts{namespace: quiet(), workloads: []*workload{deployment(0)}, scalers: []*scaler{scalerFor("Deployment", "worker")}},
			want:  active("Deployment worker is scaled by HorizontalPodAutoscaler hpa, which may scale it up again"),
		},
		"a HorizontalPodAutoscaler of a kind that is not watched": {
			facts: facts{namespace: quiet(), scalers: []*scaler{scalerFor("Rollout", "worker")}},
			want:  active("Rollout worker is scaled by HorizontalPodAutoscaler hpa, which may scale it up again"),
		},
		"a HorizontalPodAutoscaler of what is not there": {
			facts: facts{namespace: quiet(), workloads: []*workload{deployment(0)}, scalers: []*scaler{scalerFor("Deployment", "other")}},
			want:  ready(map[string]string{sightingsKey: "1"}),
		},
		"a HorizontalPodAutoscaler that is being deleted": {
			facts: facts{namespace: quiet(), workloads: []*workload{deployment(0)}, scalers: []*scaler{scalerFor("Deployment", "worker", leaving)}},
			want:  ready(map[string]string{sightingsKey: "1"}),
		},
		"a HorizontalPodAutoscaler of what is being deleted": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(leaving)}, scalers: []*scaler{scalerFor("Deployment", "worker")}},
			want:  ready(map[string]string{sightingsKey: "1"}),
		},
		"marked, and scaled by something since": {
			facts: facts{namespace: quiet(marked(stamp(time.Minute))), workloads: []*workload{deployment(0)}, scalers: []*scaler{scalerFor("Deployment", "worker")}},
			want: decided{
				phase: Active, reason: "Deployment worker is scaled by HorizontalPodAutoscaler hpa, which may scale it up again",
				writes: map[string]string{idleKey: "-", reapingKey: "-", phaseKey: now + " active"},
			},
		},
		"scaled by KEDA, by a label": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Labels = map[string]string{"scaledobject.keda.sh/name": "worker"}
			})}},
			want: active("Deployment worker is scaled by KEDA, which may scale it up again"),
		},
		"scaled by KEDA, by an annotation": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Annotations = map[string]string{"autoscaling.keda.sh/paused": "true"}
			})}},
			want: active("Deployment worker is scaled by KEDA, which may scale it up again"),
		},
		"a Job of KEDA's that has finished": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&batchv1.Job{
				ObjectMeta: controlledBy(meta("worker"), "keda.sh/v1alpha1", "ScaledJob", "work"),
				Status:     batchv1.JobStatus{Conditions: []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)}}},
			})}},
			want: active("Job worker is scaled by KEDA, which may scale it up again"),
		},
		"scaled by Knative, by a label": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Labels = map[string]string{"serving.knative.dev/service": "worker"}
			})}},
			want: active("Deployment worker is scaled by Knative, which may scale it up again"),
		},
		"scaled by Knative, by its owner": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				*m = controlledBy(*m, "serving.knative.dev/v1", "Revision", "worker-00001")
			})}},
			want: active("Deployment worker is scaled by Knative, which may scale it up again"),
		},
		"scaled down by kube-downscaler": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Annotations = map[string]string{"downscaler/original-replicas": "1"}
			})}},
			want: active("Deployment worker is scaled by kube-downscaler, which may scale it up again"),
		},
		"left out by kube-downscaler": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Annotations = map[string]string{"downscaler/exclude": "true"}
			})}},
			want: ready(map[string]string{sightingsKey: "1"}),
		},
		"scaled down by kube-green, by the owner of what it applied": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}, {Manager: "kube-green", Operation: metav1.ManagedFieldsOperationApply}}
			})}},
			want: active("Deployment worker is scaled by kube-green, which may scale it up again"),
		},
		"scaled down by an early kube-green": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Annotations = map[string]string{"sleepinfo.kube-green.com/replicas-before-sleep": "1"}
			})}},
			want: active("Deployment worker is scaled by kube-green, which may scale it up again"),
		},
		"scaled by Sablier": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Labels = map[string]string{"sablier.enable": "true", "sablier.group": "agents"}
			})}},
			want: active("Deployment worker is scaled by Sablier, which may scale it up again"),
		},
		"not scaled by Sablier": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Labels = map[string]string{"sablier.enable": "false"}
			})}},
			want: ready(map[string]string{sightingsKey: "1"}),
		},
		"names that only look like it": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				*m = controlledBy(*m, "notkeda.sh/v1", "Thing", "x")
				m.Labels, m.Annotations = map[string]string{"app": "keda.sh", "knative.dev": "x"}, map[string]string{"example.com/keda.sh": "x"}
			})}},
			want: ready(map[string]string{sightingsKey: "1"}),
		},

		// What says when something ran.
		"never seen": {
			facts: facts{namespace: quiet(annotated(activityKey, "-", idleKey, "-", phaseKey, "-"))},
			want: decided{
				phase: Idle, reason: "nothing has run there since " + now + ", which is less than 1h0m0s ago",
				writes: map[string]string{activityKey: now, idleKey: now, phaseKey: now + " idle"},
			},
		},
		"activity absent":               {facts: facts{namespace: quiet(annotated(activityKey, "-"))}, want: since(now, now)},
		"activity empty":                {facts: facts{namespace: quiet(annotated(activityKey, ""))}, want: since(now, now)},
		"activity zero":                 {facts: facts{namespace: quiet(annotated(activityKey, "0"))}, want: since(now, now)},
		"activity the zero time":        {facts: facts{namespace: quiet(annotated(activityKey, "0001-01-01T00:00:00Z"))}, want: since(now, now)},
		"activity negative":             {facts: facts{namespace: quiet(annotated(activityKey, "-5"))}, want: since(now, now)},
		"activity garbage":              {facts: facts{namespace: quiet(annotated(activityKey, "yesterday"))}, want: since(now, now)},
		"activity in the future":        {facts: facts{namespace: quiet(annotated(activityKey, stamp(-time.Second)))}, want: since(now, now)},
		"activity in far future":        {facts: facts{namespace: quiet(annotated(activityKey, "9223372036854775807"))}, want: since(now, now)},
		"activity beyond numbers":       {facts: facts{namespace: quiet(annotated(activityKey, "99999999999999999999"))}, want: since(now, now)},
		"activity in milliseconds":      {facts: facts{namespace: quiet(annotated(activityKey, "1777636800000"))}, want: since(now, now)},
		"activity before the namespace": {facts: facts{namespace: quiet(annotated(activityKey, stamp(25*time.Hour)))}, want: since(now, now)},
		"activity as Unix seconds": {
			facts: facts{namespace: quiet(annotated(activityKey, fmt.Sprint(noon.Add(-10*time.Minute).Unix())))},
			want:  since(stamp(10*time.Minute), ""),
		},
		"activity with a zone": {
			facts: facts{namespace: quiet(annotated(activityKey, "2026-05-01T13:50:00+02:00"))},
			want:  since(stamp(10*time.Minute), ""),
		},
		"activity at creation": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(24*time.Hour)))},
			want:  ready(map[string]string{sightingsKey: "1"}),
		},
		"a Pod seen to change": {
			facts: facts{namespace: quiet(), podChanged: noon.Add(-5 * time.Minute)},
			want:  since(stamp(5*time.Minute), stamp(5*time.Minute)),
		},
		"a Pod seen to change, within a minute of the last writing": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(59*time.Second))), podChanged: noon.Add(-2 * time.Second)},
			want:  since(stamp(2*time.Second), ""),
		},
		"a Pod seen to change, a minute after the last writing": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(time.Minute))), podChanged: noon.Add(-2 * time.Second)},
			want:  since(stamp(2*time.Second), stamp(2*time.Second)),
		},
		"a Pod seen to change before what is written": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(10*time.Minute))), podChanged: noon.Add(-11 * time.Minute)},
			want:  since(stamp(10*time.Minute), ""),
		},
		"a Pod that ended while nobody looked": {
			facts: facts{namespace: quiet(), pods: []*pod{aPod(90*time.Minute, inPhase(corev1.PodSucceeded), endedAgo(30*time.Minute))}},
			want:  since(stamp(30*time.Minute), stamp(30*time.Minute)),
		},
		"a Pod that ended in the future": {
			facts: facts{namespace: quiet(), pods: []*pod{aPod(90*time.Minute, inPhase(corev1.PodFailed), endedAgo(-time.Hour))}},
			want:  since(now, now),
		},

		// Idleness.
		"idle-since absent": {
			facts: facts{namespace: quiet(annotated(idleKey, "-"))},
			want:  decided{phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now}},
		},
		"idle-since garbage": {
			facts: facts{namespace: quiet(annotated(idleKey, "long ago"))},
			want:  decided{phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now}},
		},
		"idle-since in the future": {
			facts: facts{namespace: quiet(annotated(idleKey, stamp(-time.Minute)))},
			want:  decided{phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now}},
		},
		"idle-since before the namespace": {
			facts: facts{namespace: quiet(annotated(idleKey, stamp(25*time.Hour)))},
			want:  decided{phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now}},
		},
		"idle for a second too little": {
			facts: facts{namespace: quiet(annotated(idleKey, stamp(time.Hour-time.Second)))},
			want:  since(stamp(time.Hour-time.Second), ""),
		},
		"idle for exactly that long": {
			facts: facts{namespace: quiet(annotated(idleKey, stamp(time.Hour)))},
			want: decided{
				phase: Ready, reason: "nothing has run there since " + stamp(time.Hour) + ", and nothing wants to; seen so by 1 of 2 passes",
				writes: map[string]string{sightingsKey: "1"},
			},
		},
		"idle anew: sightings are reset, and a mark is taken back": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(time.Minute), sightingsKey, "1"), marked(stamp(time.Minute)))},
			want: decided{
				phase: Idle, reason: since(stamp(time.Minute), "").reason,
				writes: map[string]string{sightingsKey: "-", reapingKey: "-", phaseKey: now + " idle"},
			},
		},
		"only Pods that have ended, and workloads that want none": {
			facts: facts{namespace: quiet(),
				pods: []*pod{
					aPod(9*time.Hour, inPhase(corev1.PodSucceeded), endedAgo(3*time.Hour)), aPod(9*time.Hour, inPhase(corev1.PodFailed), endedAgo(4*time.Hour)),
				},
				workloads: []*workload{
					deployment(0),
					works(&batchv1.CronJob{ObjectMeta: meta("nightly"), Spec: batchv1.CronJobSpec{Suspend: new(true)}}),
					works(&batchv1.Job{ObjectMeta: meta("done"), Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{
						{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)}}}}),
					works(&batchv1.Job{ObjectMeta: meta("failed"), Status: batchv1.JobStatus{Conditions: []batchv1.JobCondition{
						{Type: batchv1.JobFailed, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon)}}}}),
				},
			},
			want: ready(map[string]string{sightingsKey: "1"}),
		},

		// Sightings and the mark.
		"first sighting":    {facts: facts{namespace: quiet()}, want: ready(map[string]string{sightingsKey: "1"})},
		"sightings garbage": {facts: facts{namespace: quiet(annotated(sightingsKey, "many"))}, want: ready(map[string]string{sightingsKey: "1"})},
		"sightings negative": {
			facts: facts{namespace: quiet(annotated(sightingsKey, "-7"))}, want: ready(map[string]string{sightingsKey: "1"}),
		},
		"second sighting": {
			facts: facts{namespace: quiet(annotated(sightingsKey, "1"))},
			want: decided{phase: Marked, reason: twoHours, writes: map[string]string{
				sightingsKey: "-", reapingKey: now, phaseKey: now + " marked",
			}},
		},
		"the policy wants fewer sightings than there were": {
			facts: facts{namespace: quiet(annotated(sightingsKey, "7"))},
			want: decided{phase: Marked, reason: twoHours, writes: map[string]string{
				sightingsKey: "-", reapingKey: now, phaseKey: now + " marked",
			}},
		},
		"the policy wants one sighting": {
			facts:  facts{namespace: quiet()},
			change: func(r *v1alpha1.Reaper) { r.Sightings = 1 },
			want:   decided{phase: Marked, reason: twoHours, writes: map[string]string{reapingKey: now, phaseKey: now + " marked"}},
		},
		"marked":         {facts: facts{namespace: quiet(marked(stamp(time.Minute)))}, want: decided{phase: Dismantled, reason: twoHours}},
		"marked just so": {facts: facts{namespace: quiet(marked(now))}, want: decided{phase: Dismantled, reason: twoHours}},
		"mark garbage": {
			facts: facts{namespace: quiet(annotated(reapingKey, "true"), shown("marked"))},
			want:  ready(map[string]string{sightingsKey: "1", reapingKey: "-", phaseKey: now + " idle"}),
		},
		"mark in the future": {
			facts: facts{namespace: quiet(annotated(reapingKey, stamp(-time.Minute)), shown("marked"))},
			want:  ready(map[string]string{sightingsKey: "1", reapingKey: "-", phaseKey: now + " idle"}),
		},
		"mark before the namespace": {
			facts: facts{namespace: quiet(annotated(reapingKey, stamp(25*time.Hour)), shown("marked"))},
			want:  ready(map[string]string{sightingsKey: "1", reapingKey: "-", phaseKey: now + " idle"}),
		},
		"mark garbage, at the last sighting": {
			facts: facts{namespace: quiet(annotated(reapingKey, "true", sightingsKey, "1"))},
			want: decided{phase: Marked, reason: twoHours, writes: map[string]string{
				sightingsKey: "-", reapingKey: now, phaseKey: now + " marked",
			}},
		},
		"mark taken off by somebody": {
			facts: facts{namespace: quiet(shown("marked"))},
			want: decided{
				phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now, phaseKey: now + " idle"},
			},
		},
		"mark taken off, and the policy wants one sighting": {
			facts:  facts{namespace: quiet(shown("marked"))},
			change: func(r *v1alpha1.Reaper) { r.Sightings = 1 },
			want: decided{
				phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now, phaseKey: now + " idle"},
			},
		},
		"protected since it was marked, which is over": {
			facts: facts{namespace: quiet(marked(stamp(30*time.Minute)), annotated(keepUntilKey, stamp(time.Minute)))},
			want: decided{
				phase: Idle, reason: since(now, "").reason, writes: map[string]string{idleKey: now, reapingKey: "-", phaseKey: now + " idle"},
			},
		},
		"protected until before it was marked": {
			facts: facts{namespace: quiet(marked(stamp(30*time.Minute)), annotated(keepUntilKey, stamp(31*time.Minute)))},
			want:  decided{phase: Dismantled, reason: twoHours},
		},
		"marked, and a Pod is there": {
			facts: facts{namespace: quiet(marked(stamp(time.Minute))), pods: []*pod{aPod(10 * time.Minute)}},
			want: decided{phase: Active, reason: "Pod worker-1 is there", writes: map[string]string{
				activityKey: stamp(10 * time.Minute), idleKey: "-", reapingKey: "-", phaseKey: now + " active",
			}},
		},
		"marked, and a workload wants a Pod": {
			facts: facts{namespace: quiet(marked(stamp(time.Minute)), annotated(sightingsKey, "1")), workloads: []*workload{deployment(1)}},
			want: decided{phase: Unhealthy, reason: "Deployment worker wants a Pod and has none", writes: map[string]string{
				idleKey: "-", reapingKey: "-", sightingsKey: "-", phaseKey: now + " unhealthy",
				unhealthyKey: now + " Deployment worker wants a Pod and has none",
			}},
		},

		// Protection.
		"do-not-reap true":        {facts: facts{namespace: quiet(annotated(keepKey, "true"))}, want: protected(`do-not-reap is "true"`)},
		"do-not-reap of any kind": {facts: facts{namespace: quiet(annotated(keepKey, ""))}, want: protected(`do-not-reap is ""`)},
		"do-not-reap, as a label": {facts: facts{namespace: quiet(labelled(keepKey, "true"))}, want: protected(`label do-not-reap is "true"`)},
		"do-not-reap false, as a label": {
			facts: facts{namespace: quiet(labelled(keepKey, "false"))}, want: ready(map[string]string{sightingsKey: "1"}),
		},
		"a workload has do-not-reap, as a label": {
			facts: facts{namespace: quiet(), workloads: []*workload{scaledDown(func(m *metav1.ObjectMeta) {
				m.Labels = map[string]string{keepKey: "yes"}
			})}},
			want: protected(`Deployment worker: label do-not-reap is "yes"`),
		},
		"do-not-reap False": {facts: facts{namespace: quiet(annotated(keepKey, "False"))}, want: protected(`do-not-reap is "False"`)},
		"do-not-reap false": {
			facts: facts{namespace: quiet(annotated(keepKey, "false"))}, want: ready(map[string]string{sightingsKey: "1"}),
		},
		"do-not-reap-until in the future": {
			facts: facts{namespace: quiet(annotated(keepUntilKey, stamp(-time.Second)))},
			want:  protected("do-not-reap-until is " + stamp(-time.Second)),
		},
		"do-not-reap-until garbage": {
			facts: facts{namespace: quiet(annotated(keepUntilKey, "Friday"))},
			want:  protected(`do-not-reap-until is "Friday", which is no time such as 2026-01-02T15:04:05Z`),
		},
		"do-not-reap-until past": {
			facts: facts{namespace: quiet(annotated(keepUntilKey, stamp(0)))}, want: ready(map[string]string{sightingsKey: "1"}),
		},
		"do-not-reap false, but until": {
			facts: facts{namespace: quiet(annotated(keepKey, "false", keepUntilKey, stamp(-time.Hour)))},
			want:  protected("do-not-reap-until is " + stamp(-time.Hour)),
		},
		"marked and protected": {
			facts: facts{namespace: quiet(marked(stamp(time.Minute)), annotated(keepKey, "true"))},
			want: decided{phase: Protected, reason: `do-not-reap is "true"`, writes: map[string]string{
				idleKey: "-", reapingKey: "-", phaseKey: now + " protected",
			}},
		},
		"a claim is protected": {
			facts: facts{namespace: quiet(), claims: []*claim{aClaim(map[string]string{keepKey: "yes"})}},
			want:  protected(`PersistentVolumeClaim worker-data: do-not-reap is "yes"`),
		},
		"a claim was protected": {
			facts: facts{namespace: quiet(), claims: []*claim{aClaim(map[string]string{keepUntilKey: stamp(time.Hour)})}},
			want:  ready(map[string]string{sightingsKey: "1"}),
		},
		"several things are protected": {
			facts: facts{
				namespace: quiet(),
				pods:      []*pod{aPod(9*time.Hour, inPhase(corev1.PodSucceeded), endedAgo(8*time.Hour), protectedPod)},
				services:  []*service{{dependent{object: object{name: "worker", protected: lifecycle.ProtectionMarks(nil, map[string]string{keepKey: "1"})}}}},
				workloads: []*workload{{kind: "Deployment", object: object{name: "worker", protected: lifecycle.ProtectionMarks(nil, map[string]string{keepKey: "1"})}}},
			},
			want: protected(`Deployment worker: do-not-reap is "1"; Pod worker-1: do-not-reap is "yes"; Service worker: do-not-reap is "1"`),
		},
		"protected and at work": {
			facts: facts{namespace: quiet(annotated(keepKey, "true")), pods: []*pod{aPod(3 * time.Hour)}},
			want:  protected(`do-not-reap is "true"`),
		},
		"protected and unhealthy": {
			facts: facts{namespace: quiet(annotated(keepKey, "true")), workloads: []*workload{deployment(1)}},
			want:  wantsNone("Deployment worker"),
		},

		// Workloads that want Pods.
		"Deployment": {facts: facts{namespace: quiet(), workloads: []*workload{deployment(1)}}, want: wantsNone("Deployment worker")},
		"Deployment without a number": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&appsv1.Deployment{ObjectMeta: meta("worker")})}},
			want:  wantsNone("Deployment worker"),
		},
		"StatefulSet": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&appsv1.StatefulSet{ObjectMeta: meta("db")})}},
			want:  wantsNone("StatefulSet db"),
		},
		"bare ReplicaSet": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&appsv1.ReplicaSet{ObjectMeta: meta("rs")})}},
			want:  wantsNone("ReplicaSet rs"),
		},
		"ReplicaSet of something unknown": {
			facts: facts{namespace: quiet(), workloads: []*workload{
				works(&appsv1.ReplicaSet{ObjectMeta: controlledBy(meta("rs"), "argoproj.io/v1alpha1", "Rollout", "worker")}),
			}},
			want: wantsNone("ReplicaSet rs"),
		},
		"Deployments that claim to own one another": {
			facts: facts{namespace: quiet(), workloads: []*workload{
				works(&appsv1.Deployment{ObjectMeta: controlledBy(meta("a"), "apps/v1", "Deployment", "b")}),
				works(&appsv1.Deployment{ObjectMeta: controlledBy(meta("b"), "apps/v1", "Deployment", "a")}),
			}},
			want: wantsNone("Deployment a, Deployment b"),
		},
		"ReplicaSet of a Deployment that wants none": {
			facts: facts{namespace: quiet(), workloads: []*workload{
				deployment(0), works(&appsv1.ReplicaSet{ObjectMeta: controlledBy(meta("rs"), "apps/v1", "Deployment", "worker")}),
			}},
			want: wantsNone("ReplicaSet rs"),
		},
		"ReplicaSet of a Deployment": {
			facts: facts{namespace: quiet(), workloads: []*workload{
				deployment(1), works(&appsv1.ReplicaSet{ObjectMeta: controlledBy(meta("rs"), "apps/v1", "Deployment", "worker")}),
			}},
			want: wantsNone("Deployment worker"),
		},
		"ReplicationController": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&corev1.ReplicationController{ObjectMeta: meta("rc")})}},
			want:  wantsNone("ReplicationController rc"),
		},
		"DaemonSet": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&appsv1.DaemonSet{ObjectMeta: meta("ds")})}},
			want:  wantsNone("DaemonSet ds"),
		},
		"unfinished Job": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&batchv1.Job{ObjectMeta: meta("job")})}},
			want:  wantsNone("Job job"),
		},
		"unfinished Job of a CronJob that is suspended": {
			facts: facts{namespace: quiet(), workloads: []*workload{
				works(&batchv1.CronJob{ObjectMeta: meta("nightly"), Spec: batchv1.CronJobSpec{Suspend: new(true)}}),
				works(&batchv1.Job{ObjectMeta: controlledBy(meta("job"), "batch/v1", "CronJob", "nightly")}),
			}},
			want: wantsNone("Job job"),
		},
		"CronJob": {
			facts: facts{namespace: quiet(), workloads: []*workload{works(&batchv1.CronJob{ObjectMeta: meta("nightly")})}},
			want:  active("CronJob nightly may make Pods"),
		},
		"workloads that have had no Pod for 20 minutes": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(20*time.Minute))), workloads: []*workload{
				deployment(1), works(&batchv1.CronJob{ObjectMeta: meta("nightly")}),
			}},
			want: active("CronJob nightly, Deployment worker may make Pods"),
		},
		"workloads that have had no Pod for longer": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(20*time.Minute+time.Second))), workloads: []*workload{
				deployment(1), works(&batchv1.CronJob{ObjectMeta: meta("nightly")}),
			}},
			want: wantsNone("Deployment worker"),
		},

		// Pods.
		"Pod at work": {
			facts: facts{namespace: quiet(annotated(idleKey, "-"), shown("active")), pods: []*pod{aPod(4 * time.Hour)}},
			want:  decided{phase: Active, reason: "Pod worker-1 is there"},
		},
		"Pod that nobody has placed": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(20*time.Minute))), pods: []*pod{aPod(20*time.Minute, inPhase(corev1.PodPending), neverReady)}},
			want:  active("Pod worker-1 is there"),
		},
		"Pod of which nothing is known": {
			facts: facts{namespace: quiet(), pods: []*pod{aPod(4*time.Hour, inPhase(corev1.PodUnknown))}},
			want:  active("Pod worker-1 is there"),
		},
		"Pod on its way out": {
			facts: facts{namespace: quiet(), pods: []*pod{aPod(4*time.Hour, crashing, onItsWay)}},
			want:  active("Pod worker-1 is there"),
		},
		"Pod that was never ready": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(20*time.Minute))), pods: []*pod{aPod(21*time.Minute, inPhase(corev1.PodPending), neverReady)}},
			want: decided{phase: Unhealthy, reason: "Pod worker-1 has not been ready since " + stamp(21*time.Minute), writes: map[string]string{
				idleKey: "-", phaseKey: now + " unhealthy", unhealthyKey: now + " Pod worker-1 has not been ready since " + stamp(21*time.Minute),
			}},
		},
		"Pod that is not ready for 20 minutes": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(20*time.Minute))), pods: []*pod{aPod(20*time.Minute, notReady)}},
			want:  active("Pod worker-1 is there"),
		},
		"Pod that crashes": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(time.Minute))), pods: []*pod{aPod(time.Minute, crashing)}},
			want: decided{phase: Unhealthy, reason: "container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)", writes: map[string]string{
				idleKey: "-", phaseKey: now + " unhealthy",
				unhealthyKey: now + " container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)",
			}},
		},
		"Pod whose init container crashes": {
			facts: facts{namespace: quiet(annotated(activityKey, stamp(time.Minute))), pods: []*pod{aPod(time.Minute, crashingInit)}},
			want: decided{phase: Unhealthy, reason: "container prepare of Pod worker-1 crashes again and again (CrashLoopBackOff)", writes: map[string]string{
				idleKey: "-", phaseKey: now + " unhealthy",
				unhealthyKey: now + " container prepare of Pod worker-1 crashes again and again (CrashLoopBackOff)",
			}},
		},
		"another thing is wrong: since when stays": {
			facts: facts{
				namespace: quiet(annotated(activityKey, stamp(time.Minute), idleKey, "-", unhealthyKey, stamp(time.Hour)+" Pod x is ill"), shown("unhealthy")),
				pods:      []*pod{aPod(time.Minute, crashing)},
			},
			want: decided{phase: Unhealthy, reason: "container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)", writes: map[string]string{
				unhealthyKey: stamp(time.Hour) + " container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)",
			}},
		},
		"since when it is wrong cannot be read": {
			facts: facts{
				namespace: quiet(annotated(activityKey, stamp(time.Minute), idleKey, "-", unhealthyKey, "ill"), shown("unhealthy")),
				pods:      []*pod{aPod(time.Minute, crashing)},
			},
			want: decided{phase: Unhealthy, reason: "container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)", writes: map[string]string{
				unhealthyKey: now + " container agent of Pod worker-1 crashes again and again (CrashLoopBackOff)",
			}},
		},
		"ready again, for too short a time": {
			facts: facts{
				namespace: quiet(annotated(activityKey, stamp(time.Minute), idleKey, "-", unhealthyKey, stamp(time.Hour)+" Pod x is ill"), shown("unhealthy")),
				pods:      []*pod{aPod(2*time.Minute - time.Second)},
			},
			want: decided{phase: Unhealthy, reason: "Pod x is ill"},
		},
		"not ready yet after it was unhealthy": {
			facts: facts{
				namespace: quiet(annotated(activityKey, stamp(time.Minute), idleKey, "-", unhealthyKey, stamp(time.Hour)+" Pod x is ill"), shown("unhealthy")),
				pods:      []*pod{aPod(5*time.Minute, notReady)},
			},
			want: decided{phase: Unhealthy, reason: "Pod x is ill"},
		},
		"recovered": {
			facts: facts{
				namespace: quiet(annotated(activityKey, stamp(time.Minute), idleKey, "-", unhealthyKey, stamp(time.Hour)+" Pod x is ill"), shown("unhealthy")),
				pods:      []*pod{aPod(2 * time.Minute)},
			},
			want: decided{phase: Active, reason: "Pod worker-1 is there", writes: map[string]string{unhealthyKey: "-", phaseKey: now + " active"}},
		},
		"what was unhealthy is gone": {
			facts: facts{namespace: quiet(annotated(unhealthyKey, stamp(time.Hour)+" Pod x is ill"))},
			want:  ready(map[string]string{unhealthyKey: "-", sightingsKey: "1"}),
		},
		"phase garbage": {
			facts: facts{namespace: quiet(annotated(phaseKey, "idle"))},
			want:  ready(map[string]string{sightingsKey: "1", phaseKey: now + " idle"}),
		},

		// The end.
		"terminating": {
			facts: facts{namespace: quiet(func(n *namespace) {
				n.deleting, n.deletedAt = true, noon.Add(-10*time.Minute)
			}, annotated(activityKey, "-"))},
			want: decided{phase: Terminating, reason: "it is being deleted"},
		},
		"terminating for too long": {
			facts: facts{namespace: quiet(func(n *namespace) {
				n.deleting, n.deletedAt, n.heldBy = true, noon.Add(-10*time.Minute-time.Second), []string{"finalizer kubernetes", "Some content"}
			}, annotated(keepKey, "true"))},
			want: decided{phase: Terminating, reason: "it is being deleted, and held by finalizer kubernetes; Some content", stuck: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			policy := examplePolicy(t).Reaper
			if tc.change != nil {
				tc.change(&policy)
			}
			before := maps.Clone(tc.facts.namespace.annotations)
			v := decideNamespace(&tc.facts, &policy, noon)
			got := decided{phase: v.phase, reason: v.reason, stuck: v.stuck, writes: map[string]string{}}
			for key, value := range v.annotations {
				if got.writes[key] = "-"; value != nil {
					got.writes[key] = *value
				}
			}
			if got.phase != tc.want.phase || got.reason != tc.want.reason || got.stuck != tc.want.stuck || !maps.Equal(got.writes, tc.want.writes) {
				t.Errorf("\n got %+v\nwant %+v", got, tc.want)
			}
			if !maps.Equal(before, tc.facts.namespace.annotations) {
				t.Error("the namespace itself was changed")
			}
			tc.facts.namespace = tc.facts.namespace.after(v.annotations)
			again := decideNamespace(&tc.facts, &policy, noon)
			if v.phase != Ready && v.phase != Marked && len(again.annotations) > 0 {
				t.Errorf("decided at the same time once more, it writes %v", again.annotations)
			}
		})
	}
}

// A namespace that nobody touches takes its way pass by pass, and never sooner.
func TestNamespaceTakesItsTime(t *testing.T) {
	policy := &examplePolicy(t).Reaper
	n := quiet(annotated(activityKey, "-", idleKey, "-", phaseKey, "-"))
	var seen []string
	for at := noon; len(seen) < 4; at = at.Add(30 * time.Second) {
		v := decideNamespace(&facts{namespace: n}, policy, at)
		if last := len(seen) - 1; v.phase != Idle || last < 0 {
			seen = append(seen, at.Sub(noon).String()+" "+string(v.phase))
		}
		n = n.after(v.annotations)
		if at.Sub(noon) > 2*time.Hour {
			t.Fatal("it takes for ever")
		}
	}
	if got, want := strings.Join(seen, ", "), "0s idle, 1h0m0s ready, 1h0m30s marked, 1h1m0s dismantled"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whatever a namespace holds and whatever its annotations claim: it is reaped only if nothing lives there, nothing wants to, nothing
// protects it, and nothing has run for long enough.
func FuzzDecideNamespace(f *testing.F) {
	for seed := range int64(20) {
		f.Add(seed)
	}
	policy, err := v1alpha1.Decode(v1alpha1.Example())
	if err != nil {
		f.Fatal(err)
	}
	settings := policy.Reaper
	reaped := 0
	f.Fuzz(func(t *testing.T, seed int64) {
		r := rand.New(rand.NewSource(seed))
		for range 500 {
			f := randomFacts(r)
			settings.Sightings = int32(1 + r.Intn(3))
			v := decideNamespace(f, &settings, noon)
			after := f.namespace.after(v.annotations)
			if v.reaps() {
				reaped++
				if why := mustStay(f, settings.Namespaces.IdleAfter.Duration); why != "" {
					t.Errorf("phase %s, though %s:\n%v", v.phase, why, f.namespace.annotations)
				}
				if v.phase == Dismantled && f.namespace.annotations[reapingKey] == "" {
					t.Errorf("it is taken apart without a mark:\n%v", f.namespace.annotations)
				}
			} else if after.annotations[reapingKey] != "" && v.phase != Terminating {
				t.Errorf("phase %s, and the mark stays:\n%v", v.phase, after.annotations)
			}
		}
	})
	if reaped == 0 {
		f.Error("nothing was reaped at all")
	}
}

// mustStay says what forbids that a namespace is reaped; it reads the facts as plainly as it can.
func mustStay(f *facts, idleAfter time.Duration) string {
	recent := func(at time.Time) bool { return noon.Sub(at) < idleAfter }
	for _, p := range f.pods {
		if p.live || recent(p.changedAt) {
			return "Pod " + p.name + " lives, or did"
		}
	}
	for _, w := range f.workloads {
		if w.wants {
			return w.kind + " " + w.name + " wants a Pod"
		}
	}
	says := f.namespace.annotations
	if at, err := time.Parse(time.RFC3339, says[idleKey]); err != nil || recent(at) || at.Before(f.namespace.created) {
		return "it has not been seen to be idle for long enough"
	}
	at, err := time.Parse(time.RFC3339, says[activityKey])
	if seconds, unix := strconv.ParseInt(says[activityKey], 10, 64); unix == nil {
		at, err = time.Unix(seconds, 0), nil
	}
	if err != nil || recent(at) || at.Before(f.namespace.created) {
		return "something has run there"
	}
	if value, has := says[keepKey]; has && value != "false" {
		return "it is protected"
	}
	if value, has := says[keepUntilKey]; has {
		if until, err := time.Parse(time.RFC3339, value); err != nil || until.After(noon) {
			return "it is protected for a time"
		}
	}
	if f.namespace.deleting || recent(f.podChanged) {
		return "it has just changed, or is going already"
	}
	return ""
}

// randomFacts are more often than not those of a namespace that may be reaped, with something wrong here and there.
func randomFacts(r *rand.Rand) *facts {
	times := []string{
		"-", "", "0", "-1", "now", "1777629600", "9223372036854775807", "-9223372036854775808", "1e9", "2026-05-01", "0001-01-01T00:00:00Z",
		stamp(-time.Hour), stamp(-time.Second), stamp(0), stamp(time.Second), stamp(59 * time.Minute), stamp(time.Hour), stamp(2 * time.Hour),
		stamp(23 * time.Hour), stamp(25 * time.Hour), "2026-05-01T11:30:00+02:00", "2026-05-01T11:30:00-02:00",
	}
	n := quiet()
	if r.Intn(3) > 0 {
		n.annotations[reapingKey] = stamp(time.Minute)
	}
	for _, key := range []string{activityKey, idleKey, reapingKey, keepUntilKey} {
		if r.Intn(5) == 0 {
			annotated(key, times[r.Intn(len(times))])(n)
		}
	}
	for key, values := range map[string][]string{
		keepKey: {"-", "false", "true", "", "0"}, sightingsKey: {"-", "0", "1", "2", "99", "-1", "x"},
		phaseKey: {"-", "x", stamp(time.Minute) + " marked", stamp(time.Minute) + " idle"}, unhealthyKey: {"-", "x", stamp(time.Minute) + " x"},
	} {
		if r.Intn(4) == 0 {
			annotated(key, values[r.Intn(len(values))])(n)
		}
	}
	f := &facts{namespace: n}
	if r.Intn(6) == 0 {
		f.podChanged = noon.Add(-time.Duration(r.Intn(7200)) * time.Second)
	}
	for range r.Intn(3) {
		p := aPod(time.Duration(r.Intn(20*3600))*time.Second, inPhase([]corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed}[r.Intn(2)]))
		if r.Intn(4) == 0 {
			p.live = true
		}
		f.pods = append(f.pods, p)
	}
	for range r.Intn(3) {
		w := deployment(0)
		w.wants = r.Intn(4) == 0
		if r.Intn(2) == 0 {
			w = works(&appsv1.ReplicaSet{
				ObjectMeta: controlledBy(meta("rs"), "apps/v1", "Deployment", "worker"), Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(r.Intn(2)))},
			})
		}
		f.workloads = append(f.workloads, w)
	}
	n.deleting = r.Intn(20) == 0
	return f
}
