package gateway

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// brokenAgent returns a Deployment as a gateway made it and the controller has seen it, of which no Pod was ever ready, and its Pod.
func brokenAgent(t *testing.T, w *want, now time.Time) (*appsv1.Deployment, *corev1.Pod) {
	t.Helper()
	o, err := exampleTemplate(t).render(w.name)
	if err != nil {
		t.Fatal(err)
	}
	before := *w
	before.template = "of-before"
	d := before.newDeployment(o.deployment)
	d.Generation, d.Status.ObservedGeneration, d.ResourceVersion = 3, 3, "7"
	d.Annotations[annotationRevision] = "1"
	d.Spec.Template.Spec.Containers[0].Image = "ghcr.io/dexorder/agent:broken"
	d.Status.Conditions = []appsv1.DeploymentCondition{
		{Type: appsv1.DeploymentAvailable, Status: corev1.ConditionFalse, Reason: "MinimumReplicasUnavailable"},
		{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated", LastUpdateTime: metav1.NewTime(now.Add(-time.Second))},
	}
	return d, &corev1.Pod{
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: lifecycle.AgentContainer}}},
		Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{
			{Name: lifecycle.AgentContainer, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"}}},
		}},
	}
}

// An agent that has never been ready and has failed to start takes the template of today. Whatever runs, has run, starts slowly, or
// cannot be told keeps its own.
func TestBrokenAgentTakesTheTemplateOfToday(t *testing.T) {
	now := time.Now()
	progressing := func(d *appsv1.Deployment) *appsv1.DeploymentCondition { return &d.Status.Conditions[1] }
	container := func(pod *corev1.Pod) *corev1.ContainerStatus { return &pod.Status.ContainerStatuses[0] }
	for name, tt := range map[string]struct {
		change   func(d *appsv1.Deployment, pod *corev1.Pod)
		takes    bool
		revision string
	}{
		"its image cannot be pulled": {func(*appsv1.Deployment, *corev1.Pod) {}, true, "2"},
		"made by an older gateway":   {func(d *appsv1.Deployment, _ *corev1.Pod) { delete(d.Annotations, lifecycle.AnnotationTemplate) }, true, "2"},
		"broken a second time": {func(d *appsv1.Deployment, _ *corev1.Pod) {
			d.Annotations[annotationRevision] = "4"
			origin{"of-before", 4}.write(&d.ObjectMeta)
		}, true, "5"},
		"its Pods are refused": {func(d *appsv1.Deployment, pod *corev1.Pod) {
			container(pod).State.Waiting = nil
			d.Status.Conditions = append(d.Status.Conditions, appsv1.DeploymentCondition{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue})
		}, true, "2"},
		"it crashes": {func(_ *appsv1.Deployment, pod *corev1.Pod) {
			container(pod).State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			container(pod).RestartCount = 1
		}, true, "2"},
		"nothing is known for a minute": {func(d *appsv1.Deployment, pod *corev1.Pod) {
			pod.Status = corev1.PodStatus{}
			progressing(d).LastUpdateTime = metav1.NewTime(now.Add(-time.Minute))
		}, true, "2"},
		"out of time": {func(d *appsv1.Deployment, pod *corev1.Pod) {
			pod.Status = corev1.PodStatus{}
			progressing(d).Reason = rolloutTimedOut
		}, true, "2"},
		"it only starts": {func(_ *appsv1.Deployment, pod *corev1.Pod) { container(pod).State.Waiting.Reason = "ContainerCreating" }, false, "1"},
		"it runs and is not ready": {func(d *appsv1.Deployment, pod *corev1.Pod) {
			container(pod).State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
			progressing(d).LastUpdateTime = metav1.NewTime(now.Add(-time.Minute))
		}, false, "1"},
		"it ended because it was idle": {func(_ *appsv1.Deployment, pod *corev1.Pod) {
			container(pod).State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: lifecycle.ExitIdle}}
			container(pod).RestartCount = 1
		}, false, "1"},
		"it was ready once":             {func(d *appsv1.Deployment, _ *corev1.Pod) { progressing(d).Reason = "NewReplicaSetAvailable" }, false, "1"},
		"it is ready":                   {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Status.ReadyReplicas = 1 }, false, "1"},
		"changed by somebody else":      {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Annotations[annotationRevision] = "2" }, false, "1"},
		"a change that nobody has seen": {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Generation++ }, false, "1"},
		"no controller": {func(d *appsv1.Deployment, _ *corev1.Pod) {
			d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation}
		}, false, "1"},
		"paused":                        {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Spec.Paused = true }, false, "1"},
		"an origin that cannot be read": {func(d *appsv1.Deployment, _ *corev1.Pod) { d.Annotations[lifecycle.AnnotationTemplate] = "of-before@x" }, false, ""},
		"made of the template of today": {func(d *appsv1.Deployment, _ *corev1.Pod) { origin{"of-today", 1}.write(&d.ObjectMeta) }, false, "1"},
	} {
		w := &want{name: "agent-x", user: "x", userType: lifecycle.Free, template: "of-today", asked: remembered{Env: map[string]string{"A": "1"}}}
		d, pod := brokenAgent(t, w, now)
		tt.change(d, pod)
		o, err := exampleTemplate(t).render(w.name)
		if err != nil {
			t.Fatal(err)
		}
		changed := w.mendedDeployment(d, o.deployment, pod, now)
		if (changed != nil) != tt.takes {
			t.Errorf("%s: it is changed: %t, want %t", name, changed != nil, tt.takes)
			continue
		}
		if changed == nil {
			continue
		}
		c := changed.Spec.Template.Spec.Containers[0]
		if c.Image != "ghcr.io/dexorder/agent:v1.0.0" || c.Env[len(c.Env)-1].Name != "A" || changed.ResourceVersion != "7" ||
			changed.Annotations[lifecycle.AnnotationTemplate] != "of-today@"+tt.revision {
			t.Errorf("%s: it becomes %+v of %s", name, c, changed.Annotations[lifecycle.AnnotationTemplate])
		}
	}
}

// What a user changes of an agent that has never been ready is no change by somebody else.
func TestChangeOfABrokenAgentKeepsItsOrigin(t *testing.T) {
	now := time.Now()
	w := &want{name: "agent-x", user: "x", userType: lifecycle.Free, template: "of-before"}
	d, pod := brokenAgent(t, w, now)
	w.asked.Image = "ghcr.io/dexorder/agent:v2"
	o, err := exampleTemplate(t).render(w.name)
	if err != nil {
		t.Fatal(err)
	}
	changed := w.mendedDeployment(d, o.deployment, pod, now)
	if changed == nil || changed.Annotations[lifecycle.AnnotationTemplate] != "of-before@2" || changed.Spec.Template.Spec.Containers[0].Image != w.asked.Image {
		t.Errorf("%+v", changed)
	}
}

func TestTemplateHash(t *testing.T) {
	first, again := exampleTemplate(t), exampleTemplate(t)
	other, err := ParseTemplate([]byte(first.text + "\n# a comment\n"))
	if err != nil {
		t.Fatal(err)
	}
	if first.hash == "" || first.hash != again.hash || first.hash != other.hash {
		t.Errorf("%q, %q and %q", first.hash, again.hash, other.hash)
	}
}
