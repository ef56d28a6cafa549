package gateway

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// That an agent is stopping is its last word: it counts when the stream has ended, until the agent is started again or has gone. Of
// everything else nobody knows once the stream has ended.
func TestLastWord(t *testing.T) {
	f, err := newFleet(fake.NewClientset(), "agents", func(*corev1.Pod, bool) {})
	if err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "agents", Name: "p", UID: "1"}}
	pod.Spec.Containers = []corev1.Container{{Name: lifecycle.AgentContainer}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: lifecycle.AgentContainer, RestartCount: 1}}
	set := func(pod *corev1.Pod) {
		if err := f.pods.Update(pod); err != nil {
			t.Fatal(err)
		}
	}
	set(pod)
	first, second := &stream{}, &stream{announce: nil, pod: pod}
	since := time.Now()
	for _, tt := range []struct {
		name   string
		happen func()
		want   lifecycle.State
	}{
		{"nothing was said", func() {}, ""},
		{"idle", func() { f.say(pod, saying{state: lifecycle.Idle, since: since}, first) }, lifecycle.Idle},
		{"another stream ended", func() { f.hush(pod, second) }, lifecycle.Idle},
		{"the stream ended", func() { f.hush(pod, first) }, ""},
		{"stopping", func() { f.say(pod, saying{state: lifecycle.Shutdown, since: since}, first) }, lifecycle.Shutdown},
		{"the stream ended after the last word", func() { f.hush(pod, first) }, lifecycle.Shutdown},
		{"started again", func() { pod = pod.DeepCopy(); pod.Status.ContainerStatuses[0].RestartCount = 2; set(pod) }, ""},
		{"at work again", func() { f.say(pod, saying{state: lifecycle.Running, since: since}, second) }, lifecycle.Running},
		{"gone", func() { f.forget(pod) }, ""},
		{"said by one that has gone", func() {
			if err := f.pods.Delete(pod); err != nil {
				t.Fatal(err)
			}
			f.say(pod, saying{state: lifecycle.Running, since: since}, second)
		}, ""},
	} {
		tt.happen()
		if got := f.saidBy(pod).state; got != tt.want {
			t.Errorf("%s: it says %q, want %q", tt.name, got, tt.want)
		}
	}
	if len(f.said) != 0 {
		t.Errorf("remembered are %v", f.said)
	}
}
