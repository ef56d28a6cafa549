package gateway

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/workload"
)

const (
	// slowStart is how long a rollout without progress is taken for a slow one, where the kubelet names no reason.
	slowStart = 30 * time.Second

	// annotationRevision counts the templates that a Deployment has had. The deployment controller writes it.
	annotationRevision = "deployment.kubernetes.io/revision"
)

// origin says of which template a Deployment was made, as lifecycle.AnnotationTemplate has it, and as which of its
// revisions: before that revision no Pod of it was ready.
type origin struct {
	template string
	revision int64
}

// originOf reads the annotation. A Deployment without it was made of an unknown template.
func originOf(d *appsv1.Deployment) origin {
	template, revision, _ := strings.Cut(d.Annotations[lifecycle.AnnotationTemplate], "@")
	if template == "" {
		return origin{revision: 1}
	}
	number, err := strconv.ParseInt(revision, 10, 64)
	if err != nil {
		number = 0 // of no Deployment: it cannot be told
	}
	return origin{template, number}
}

func (o origin) write(meta *metav1.ObjectMeta) {
	metav1.SetMetaDataAnnotation(meta, lifecycle.AnnotationTemplate, fmt.Sprintf("%s@%d", o.template, o.revision))
}

// rolloutBegun are the reasons of the condition Progressing before the first Pod of a template was available. Afterwards the reason is
// another one until the template changes.
var rolloutBegun = []string{"NewReplicaSetCreated", "FoundNewReplicaSet", "ReplicaSetUpdated", "ReplicaSetCreateError", rolloutTimedOut}

// rolloutTimedOut is that reason after spec.progressDeadlineSeconds without progress.
const rolloutTimedOut = "ProgressDeadlineExceeded"

// neverReady says whether no Pod of a Deployment has been ready since it was created. It is false where that cannot be told: while the
// controller has not seen the last change, and where the template was changed by others than gateways that keep its origin.
func neverReady(d *appsv1.Deployment) bool {
	revision, err := strconv.ParseInt(d.Annotations[annotationRevision], 10, 64)
	available, progressing := workload.DeploymentCondition(d, appsv1.DeploymentAvailable), workload.DeploymentCondition(d, appsv1.DeploymentProgressing)
	return err == nil && revision == originOf(d).revision && d.Status.ObservedGeneration == d.Generation && !d.Spec.Paused &&
		d.Status.ReadyReplicas == 0 && d.Status.AvailableReplicas == 0 &&
		available != nil && available.Status == corev1.ConditionFalse &&
		progressing != nil && slices.Contains(rolloutBegun, progressing.Reason)
}

// startFailed says whether an agent that has never been ready is not merely slow. An agent that runs is given the time of the
// Deployment. pod is nil where there is none.
func startFailed(d *appsv1.Deployment, pod *corev1.Pod, now time.Time) bool {
	progressing, refused := workload.DeploymentCondition(d, appsv1.DeploymentProgressing), workload.DeploymentCondition(d, appsv1.DeploymentReplicaFailure)
	if progressing == nil {
		return false
	}
	if progressing.Reason == rolloutTimedOut || refused != nil && refused.Status == corev1.ConditionTrue {
		return true
	}
	if pod != nil {
		if serving(pod) || endedIdle(pod) {
			return false // the controller has yet to hear of it
		}
		for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
			waiting := s.State.Waiting
			if waiting != nil && !slices.Contains([]string{"", "ContainerCreating", "PodInitializing"}, waiting.Reason) {
				return true
			}
		}
		if s := workload.AgentContainerStatus(pod); s != nil && (s.State.Running != nil || s.State.Terminated != nil) {
			return s.RestartCount > 0
		}
	}
	return now.Sub(progressing.LastUpdateTime.Time) >= slowStart
}
