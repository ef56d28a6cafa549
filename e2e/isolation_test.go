//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var errStillThere = errors.New("the old Pod is still there")

// TestIsolation: an agent sees the other processes of its Pod and reaches none of them.
func TestIsolation(t *testing.T) {
	t.Parallel()
	l := bear(t, "isolation")
	var processes map[string]string
	if err := json.Unmarshal([]byte(l.must("GET", "processes")), &processes); err != nil {
		t.Fatal(err)
	}
	sidecar := ""
	for pid, name := range processes {
		if name == "program" {
			sidecar = pid
		}
	}
	if sidecar == "" || processes["1"] != "pause" {
		t.Fatalf("the Pod does not share its processes: %v", processes)
	}
	token := "/proc/" + sidecar + "/root/var/run/secrets/kubernetes.io/serviceaccount/token"
	if got, err := l.call("GET", "read", "path", token); err == nil || strings.Contains(got, "eyJ") {
		t.Errorf("the agent reads the sidecar's token: %v", got)
	}
	if got, err := l.call("GET", "read", "path", "/proc/"+sidecar+"/environ"); err == nil {
		t.Errorf("the agent reads the sidecar's environment: %v", got)
	}
	for _, pid := range []string{sidecar, "1"} {
		if got := l.must("POST", "kill", "pid", pid, "signal", "9"); !strings.Contains(got, "operation not permitted") {
			t.Errorf("kill -9 %s (%s): %s", pid, processes[pid], got)
		}
	}
	if c := l.status("lifecycle-sidecar"); c.RestartCount != 0 {
		t.Errorf("the sidecar was started again: %+v", c)
	}
}

// TestDrain: a Pod that has to leave its node does not wait for its sidecar.
func TestDrain(t *testing.T) {
	t.Parallel()
	const grace = 180 * time.Second // so long that a machine with much to do is not mistaken for it
	l := bear(t, "drain", func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.TerminationGracePeriodSeconds = new(int64(grace / time.Second))
	})
	old, start := l.pod.Name, time.Now()
	err := client.PolicyV1().Evictions(agentsNamespace).Evict(t.Context(),
		&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: old, Namespace: agentsNamespace}})
	if err != nil {
		t.Fatal(err)
	}
	l.awaitOther(old)
	took := time.Since(start)
	t.Logf("evicted and running again after %s; the grace period is %s", took, grace)
	if took > grace/2 {
		t.Errorf("that took %s of the grace period of %s", took, grace)
	}
	l.expectKept()
}

// TestApplyDuringDeletion: what is applied to an agent that goes is refused instead of being lost.
func TestApplyDuringDeletion(t *testing.T) {
	t.Parallel()
	l := bear(t, "apply-during")
	deployments := client.AppsV1().Deployments(agentsNamespace)
	hold := []byte(`{"metadata": {"finalizers": ["e2e.lifecycle.dexorder.io/hold"]}}`)
	if _, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, hold, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.leave42()
	eventually(t, lifeTimeout, func(ctx context.Context) error {
		d, err := deployments.Get(ctx, l.name, metav1.GetOptions{})
		if err != nil || d.DeletionTimestamp == nil {
			return errors.Join(errors.New("the agent does not go"), err)
		}
		return nil
	})
	change := []byte(`{"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}`)
	_, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, change, metav1.PatchOptions{})
	if err == nil || !strings.Contains(err.Error(), "on its way out") {
		t.Errorf("got %v, want a refusal with a reason", err)
	}
	release := []byte(`{"metadata": {"finalizers": null}}`)
	if _, err := deployments.Patch(t.Context(), l.name, types.MergePatchType, release, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.expectGone()
}

// TestWarning: the warning comes before the stop, and a snooze moves it.
func TestWarning(t *testing.T) {
	t.Parallel()
	l := bear(t, "warning", withManager("IDLE_TIMEOUT_MINUTES=0.5"))
	var status struct {
		State    string
		Warned   bool
		Deadline time.Time
	}
	read := func() {
		t.Helper()
		if err := json.Unmarshal([]byte(l.must("GET", "manager/v1/status")), &status); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, lifeTimeout, func(context.Context) error {
		read()
		if !status.Warned || status.State != "IDLE" {
			return errors.New("the agent was not warned")
		}
		return nil
	})
	first := status.Deadline
	if left := time.Until(first); left <= 0 {
		t.Errorf("the warning came %s after the stop", -left)
	}
	body := `{"seconds": 50}`
	answer, err := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name + ":8080").
		SubResource("proxy").Suffix("manager/v1/snooze").Body([]byte(body)).DoRaw(t.Context())
	if err != nil {
		t.Fatalf("snooze: %v: %s", err, answer)
	}
	read()
	if status.Warned || !status.Deadline.After(first) {
		t.Errorf("after the snooze: %+v, the deadline was %s", status, first)
	}
	time.Sleep(time.Until(first) + 3*time.Second)
	l.expectKept()
	l.expectGone()
}
