package webhook

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/workload"
)

// asks is the request of a Pod to delete the Deployment d.
func (c *inCluster) asks(pod string) *policy.Request {
	d := c.deployment.DeepCopy()
	d.Labels = map[string]string{"l": "newer"} // than what memory has
	return &policy.Request{
		Operation: admissionv1.Delete, Namespace: covered, Name: "d", Old: workload.FromDeployment(d),
		User: authenticationv1.UserInfo{Extra: map[string]authenticationv1.ExtraValue{
			"authentication.kubernetes.io/pod-name": {pod}, "authentication.kubernetes.io/pod-uid": {"x"},
		}},
	}
}

// runs creates a Pod of the Deployment d for the length of a test.
func (c *inCluster) runs(t *testing.T, name string) *corev1.Pod {
	t.Helper()
	pods := c.api.CoreV1().Pods(covered)
	pod := &corev1.Pod{
		ObjectMeta: ownedBy(name, ref("apps/v1", "ReplicaSet", c.replicaSet)), Spec: newDeployment().Spec.Template.Spec,
	}
	pod, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		_ = pods.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
	})
	return pod
}

func (c *inCluster) testDeletion(t *testing.T, cluster *Cluster, fresh bool) {
	pod := c.runs(t, "caller")
	needs := policy.Needs{Caller: true, ClaimsOf: "d", Deployments: []string{"d", "none"}}
	before := time.Now()
	got, err := cluster.Facts(t.Context(), c.asks("caller"), needs, fresh)
	must(t, err)
	if got.Now.Time.Before(before) {
		t.Errorf("gathered at %s", got.Now)
	}
	if got.Caller == nil || got.Caller.Pod == nil || got.Caller.Pod.UID != pod.UID {
		t.Fatalf("caller %+v", got.Caller)
	}
	owner := got.Caller.Owner
	if diff := cmp.Diff([]string{"ReplicaSet", "Deployment"}, owner.Kinds); diff != "" || owner.UID != c.deployment.UID ||
		owner.Labels["l"] != "newer" {
		t.Errorf("owner %+v", owner)
	}
	if diff := cmp.Diff(map[string]policy.Claim{"data": {Exists: true, Deployment: "d"}}, got.Claims); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if d, ok := got.Deployments["none"]; d != nil || !ok || got.Deployments["d"] == nil || got.Deployments["d"].UID != c.deployment.UID {
		t.Errorf("Deployments %+v", got.Deployments)
	}
	c.testRaise(t, cluster, fresh)
	got, err = cluster.Facts(t.Context(), c.asks("gone"), policy.Needs{Caller: true}, fresh)
	if err != nil || got.Caller == nil || got.Caller.Pod != nil || got.Caller.Owner != nil {
		t.Errorf("a Pod that has gone: %+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := cluster.Facts(ctx, c.asks("caller"), needs, fresh); err == nil {
		t.Errorf("a look-up that failed is taken for an answer: %+v", got)
	}
}

// testRaise: a claim that has just become one to be kept is known as such, or a deletion would take it along.
func (c *inCluster) testRaise(t *testing.T, cluster *Cluster, fresh bool) {
	t.Helper()
	label := func(value string) {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, lifecycle.LabelUserType, value)
		_, err := c.api.CoreV1().PersistentVolumeClaims(covered).Patch(t.Context(), "data", types.MergePatchType, patch, metav1.PatchOptions{})
		must(t, err)
	}
	defer label("null")
	for i := range 10 { // memory is behind by so little that it may be right by chance
		want := fmt.Sprintf("type-%d", i)
		label(fmt.Sprintf("%q", want))
		got, err := cluster.Facts(t.Context(), c.asks("caller"), policy.Needs{Caller: true, ClaimsOf: "d"}, fresh)
		must(t, err)
		if got := got.Claims["data"].UserType; got != want {
			t.Fatalf("a claim that was raised to %q is of user type %q", want, got)
		}
	}
}

// testWatch follows a Pod through a status and its end.
func (c *inCluster) testWatch(t *testing.T, cluster *Cluster) {
	c.runs(t, "watched")
	c.runs(t, "watched-too") // whose changes are somebody else's
	report := func(name string) {
		patch := []byte(`{"status":{"containerStatuses":[{"name":"agent","state":{"terminated":{"exitCode":42}}}]}}`)
		_, err := c.api.CoreV1().Pods(covered).Patch(t.Context(), name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		must(t, err)
	}
	ask := func() *policy.Request {
		r := c.asks("watched")
		facts, err := cluster.Facts(t.Context(), r, policy.Needs{Caller: true}, false)
		must(t, err)
		r.Facts = facts
		return r
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r := ask()
	report("watched-too")
	report("watched") // between the look and the watch
	must(t, cluster.WatchCaller(ctx, r, func(now *policy.Facts) bool {
		statuses := now.Caller.Pod.Status.ContainerStatuses
		if now.Caller.Pod.Name != "watched" || now.Caller.Owner == nil || now.Now.Before(&r.Facts.Now) {
			t.Errorf("saw %+v", now.Caller)
		}
		return len(statuses) == 1 && statuses[0].State.Terminated.ExitCode == 42
	}))
	r = ask()
	must(t, c.api.CoreV1().Pods(covered).Delete(t.Context(), "watched", metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	must(t, cluster.WatchCaller(ctx, r, func(now *policy.Facts) bool { return now.Caller.Pod == nil }))

	r = c.asks("watched-too")
	facts, err := cluster.Facts(t.Context(), r, policy.Needs{Caller: true}, false)
	must(t, err)
	r.Facts = facts
	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	err = cluster.WatchCaller(short, r, func(*policy.Facts) bool { return true })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing happens: %v", err)
	}
	r.Facts.Caller.Pod.ResourceVersion = "none"
	if err := cluster.WatchCaller(ctx, r, func(*policy.Facts) bool { return true }); err == nil {
		t.Error("a watch that cannot be had is no error")
	}
}
