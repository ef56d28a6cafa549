package policy_test

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/policy"
)

// FuzzSelfDelete lets kubelets report whatever they like. No deletion may be allowed without an exit code of 42, no signal,
// and where the container was started again, a fresh one.
func FuzzSelfDelete(f *testing.F) {
	fixture := readFixture(f, "testdata/self-delete/allow-idle.yaml")
	p := fixture.policy(f)
	window := p.SelfDelete().ProofWindow.Duration
	f.Add(int32(42), int32(0), int32(0), int32(0), int64(2), int64(2), uint8(0))
	f.Add(int32(0), int32(0), int32(42), int32(0), int64(0), int64(61), uint8(1))
	f.Add(int32(42), int32(9), int32(42), int32(0), int64(-60), int64(5), uint8(2))
	f.Fuzz(func(t *testing.T, code, signal, lastCode, lastSignal int32, ago, lastAgo int64, shape uint8) {
		r, _ := fixture.request(t, p)
		ended := func(code, signal int32, ago int64) *corev1.ContainerStateTerminated {
			at := metav1.NewTime(now.Add(-time.Duration(ago%1e6) * time.Second))
			return &corev1.ContainerStateTerminated{ExitCode: code, Signal: signal, FinishedAt: at}
		}
		status := &r.Facts.Caller.Pod.Status.ContainerStatuses[0]
		status.State, status.LastTerminationState = corev1.ContainerState{}, corev1.ContainerState{}
		switch shape % 3 {
		case 0:
			status.State.Terminated = ended(code, signal, ago)
		case 1:
			status.State.Running = &corev1.ContainerStateRunning{}
		}
		if shape%2 == 0 {
			status.LastTerminationState.Terminated = ended(lastCode, lastSignal, lastAgo)
		}
		v := p.Review(r)
		if !v.Allowed() {
			if v.SelfDelete != nil {
				t.Fatal("refused, and called proven")
			}
			return
		}
		checkProof(t, v.SelfDelete, status, window)
	})
}

func checkProof(t *testing.T, proof *policy.SelfDelete, status *corev1.ContainerStatus, window time.Duration) {
	t.Helper()
	exit := status.State.Terminated
	if exit == nil {
		exit = status.LastTerminationState.Terminated
		if exit == nil || now.Sub(exit.FinishedAt.Time) > window {
			t.Fatalf("allowed with status %+v", status)
		}
	}
	if exit.ExitCode != 42 || exit.Signal != 0 {
		t.Fatalf("allowed with status %+v", status)
	}
	if proof == nil || proof.ExitCode != 42 || !proof.FinishedAt.Equal(&exit.FinishedAt) || !proof.Charge {
		t.Errorf("the proof is %+v", proof)
	}
}

func TestWait(t *testing.T) {
	with := func(waits ...policy.Wait) policy.Verdict {
		var v policy.Verdict
		for _, w := range waits {
			v.Denials = append(v.Denials, policy.Violation{Wait: w})
		}
		return v
	}
	for _, tc := range []struct {
		verdict policy.Verdict
		want    policy.Wait
	}{
		{with(), policy.WaitForNothing},
		{with(policy.WaitForExit), policy.WaitForExit},
		{with(policy.WaitForExit, policy.WaitForNothing), policy.WaitForNothing},
		{with(policy.WaitForExit, policy.WaitForChange), policy.WaitForChange},
	} {
		if got := tc.verdict.Wait(); got != tc.want {
			t.Errorf("%v: waits for %d, want %d", tc.verdict.Denials, got, tc.want)
		}
	}
}

// Every refusal that may wait says so, and no other: the sidecar goes by it.
func TestWhatSelfDeletesWaitFor(t *testing.T) {
	for name, want := range map[string]policy.Wait{
		"deny-running": policy.WaitForExit, "deny-stale": policy.WaitForExit, "deny-no-status": policy.WaitForExit,
		"deny-kept-claim-with-owner": policy.WaitForChange,
		"deny-protected":             policy.WaitForChange, "deny-protected-by-label": policy.WaitForChange,
		"deny-protected-until": policy.WaitForChange, "deny-claim-protected": policy.WaitForChange,
		"deny-claim-of-protected": policy.WaitForChange, "deny-protected-claim-with-owner": policy.WaitForChange,
		"deny-crash": policy.WaitForNothing, "deny-enterprise": policy.WaitForNothing,
		"deny-failed-start": policy.WaitForNothing, "deny-neighbour": policy.WaitForNothing,
	} {
		f := readFixture(t, "testdata/self-delete/"+name+".yaml")
		p := f.policy(t)
		r, _ := f.request(t, p)
		if got := p.Review(r).Wait(); got != want {
			t.Errorf("%s waits for %d, want %d", name, got, want)
		}
	}
}
