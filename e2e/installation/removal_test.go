//go:build e2e

package installation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/keep"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// expectRemoved waits until nothing of the system is left but what agents run by, and what keeps that. What kubectl and helm have asked
// to be deleted they do not wait for in every case.
func expectRemoved(t *testing.T) {
	t.Helper()
	defer took(t, "until all is gone", time.Now())
	eventually(t, func(context.Context) error {
		left := mustKubectl(t, "get", "-o", "name", "-l", "app.kubernetes.io/part-of=agent-lifecycle",
			"clusterrole,clusterrolebinding,priorityclass,mutatingwebhookconfiguration,validatingwebhookconfiguration,"+
				"validatingadmissionpolicy,validatingadmissionpolicybinding,namespace")
		left += mustKubectl(t, "get", "-o", "name", "-n", agentsNamespace, "-l", "app.kubernetes.io/part-of=agent-lifecycle",
			"role,rolebinding,networkpolicy,serviceaccount,configmap")
		got, want := strings.Fields(left), []string{
			"validatingadmissionpolicy.admissionregistration.k8s.io/" + keep.Lasting,
			"validatingadmissionpolicybinding.admissionregistration.k8s.io/" + keep.Lasting,
			"namespace/" + agentsNamespace, "serviceaccount/agent-lifecycle",
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%v are left, want %v", got, want)
		}
		return nil
	})
}

// expectEndedAtRest ends an agent while nobody is there to judge its deletion. It stays as it has ended, and nothing is
// started over and over.
func expectEndedAtRest(t *testing.T, name string) {
	t.Helper()
	endIdle(t, name)
	pod := func(ctx context.Context) (*corev1.Pod, error) {
		list, err := client.CoreV1().Pods(agentsNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			return nil, err
		}
		if len(list.Items) != 1 {
			return nil, fmt.Errorf("agent %s has %d Pods, want 1", name, len(list.Items))
		}
		return &list.Items[0], nil
	}
	ended := func(ctx context.Context) error {
		p, err := pod(ctx)
		if err != nil {
			return err
		}
		for _, c := range p.Status.ContainerStatuses {
			switch {
			case c.RestartCount != 0:
				return fmt.Errorf("container %s of agent %s was restarted", c.Name, name)
			case c.Name == lifecycle.AgentContainer && (c.State.Terminated == nil || c.State.Terminated.ExitCode != lifecycle.ExitIdle):
				return fmt.Errorf("agent %s has not ended with %d: %+v", name, lifecycle.ExitIdle, c.State)
			case c.Name == lifecycle.SidecarContainer && c.State.Running == nil:
				return fmt.Errorf("the sidecar of agent %s does not run: %+v", name, c.State)
			}
		}
		return nil
	}
	eventually(t, ended)
	p, err := pod(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(5 * time.Second)
	if err := ended(t.Context()); err != nil {
		t.Error(err)
	}
	log, err := client.CoreV1().Pods(agentsNamespace).GetLogs(p.Name, &corev1.PodLogOptions{Container: lifecycle.SidecarContainer}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(log), "\n"); lines > 30 {
		t.Errorf("the sidecar of agent %s says %d lines in some seconds:\n%s", name, lines, log)
	}
	if now, err := pod(t.Context()); err != nil || now.UID != p.UID {
		t.Errorf("agent %s has another Pod: %v", name, err)
	}
}
