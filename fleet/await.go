package fleet

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pollEvery is how often it is looked whether an agent has come up.
const pollEvery = 500 * time.Millisecond

// await waits until an agent that was restarted is ready. That it has gone meanwhile is well: it will have been idle.
func (r *Roll) await(ctx context.Context, d *appsv1.Deployment, changes []string, within time.Duration) (*Step, error) {
	deadline := r.Now().Add(within)
	api := r.Cluster.client.AppsV1().Deployments(d.Namespace)
	var last error
	for {
		now, err := api.Get(ctx, d.Name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) || err == nil && (now.UID != d.UID || now.DeletionTimestamp != nil):
			return &Step{Outcome: Vanished, Changes: changes, Reason: "it has been deleted since"}, nil
		case err != nil:
			last = err // for a while the API server may be away
		case settled(now):
			return &Step{Outcome: Renewed, Changes: changes}, nil
		default:
			d, last = now, nil
		}
		if !r.Now().Before(deadline) {
			break
		}
		if err := sleep(ctx, pollEvery); err != nil {
			return nil, err
		}
	}
	if last != nil {
		return nil, last
	}
	reason := fmt.Sprintf("it was restarted and is not ready after %s: %s. %s", r.ReadyWithin, r.symptoms(ctx, d), r.undo(d))
	return &Step{Outcome: Failed, Changes: changes, Reason: reason}, nil
}

// leftUnready is what is said of an agent that an earlier run has left.
func (r *Roll) leftUnready(ctx context.Context, d *appsv1.Deployment) *Step {
	reason := fmt.Sprintf("an earlier run has restarted it, and it has not been ready since: %s. %s", r.symptoms(ctx, d), r.undo(d))
	if r.SkipFailed {
		return &Step{Outcome: LeftOut, Reason: reason}
	}
	return &Step{Outcome: Failed, Reason: reason + ". To go on without it, use --skip-failed"}
}

// symptoms is what Kubernetes says of an agent that does not come up.
func (r *Roll) symptoms(ctx context.Context, d *appsv1.Deployment) string {
	var all []string
	for _, c := range d.Status.Conditions {
		if c.Type == appsv1.DeploymentReplicaFailure && c.Status == corev1.ConditionTrue {
			all = append(all, c.Message)
		}
	}
	pods, err := r.Cluster.podsOf(ctx, d)
	if err != nil {
		return err.Error()
	}
	for i := range pods {
		all = append(all, podSymptoms(&pods[i])...)
	}
	if len(all) == 0 {
		return fmt.Sprintf("%d of %d replicas are ready", d.Status.ReadyReplicas, replicasOf(d))
	}
	return strings.Join(slices.Compact(all), "; ")
}

func podSymptoms(pod *corev1.Pod) []string {
	if pod.DeletionTimestamp != nil {
		return []string{fmt.Sprintf("Pod %s is still going", pod.Name)}
	}
	var all []string
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			all = append(all, fmt.Sprintf("Pod %s is not scheduled: %s", pod.Name, c.Message))
		}
	}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		switch last := s.LastTerminationState.Terminated; {
		case s.State.Waiting != nil && last != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s: %s, ended before with exit code %d", pod.Name, s.Name, s.State.Waiting.Reason, last.ExitCode))
		case s.State.Waiting != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s: %s %s", pod.Name, s.Name, s.State.Waiting.Reason, s.State.Waiting.Message))
		case s.State.Terminated != nil:
			all = append(all, fmt.Sprintf("Pod %s: container %s ended with exit code %d", pod.Name, s.Name, s.State.Terminated.ExitCode))
		case s.State.Running != nil && !s.Ready:
			all = append(all, fmt.Sprintf("Pod %s: container %s runs and is not ready", pod.Name, s.Name))
		}
	}
	if len(all) == 0 {
		all = append(all, fmt.Sprintf("Pod %s is %s", pod.Name, pod.Status.Phase))
	}
	return all
}

// undo says how to get the agent back to work. A rollout undo would not: the webhook puts back what is injected.
func (r *Roll) undo(d *appsv1.Deployment) string {
	if r.Mode == Upgrade {
		return "To undo it, name the sidecar of before in the policy and run this again for the agent: see Upgrade in docs/install.md"
	}
	return fmt.Sprintf("To undo it, say in the manifest of %q what was filled in, and apply that: see Where agents run already in docs/install.md", d.Name)
}
