package reaper

import (
	"hash/fnv"
	"io"
	"strconv"
	"time"
	"unique"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	workloads "github.com/dexorder/agent-lifecycle/workload"
)

// record is what is remembered of an object. A cluster has tens of thousands of Pods, each of which is some kilobytes as the API
// server describes it and some hundred bytes here.
type record interface {
	metav1.ObjectMetaAccessor
	id() *object
}

// object is what all records have.
type object struct {
	namespace, name string
	uid             types.UID
	resourceVersion string
	created         time.Time
	deleting        bool

	// protected holds the marks that protect it, or did; nil for nearly everything.
	protected []lifecycle.ProtectionMark
}

func (o *object) id() *object { return o }

// GetObjectMeta implements metav1.ObjectMetaAccessor, by which client-go finds an object's key.
func (o *object) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Namespace: o.namespace, Name: o.name, UID: o.uid, ResourceVersion: o.resourceVersion}
}

func newObject(m *metav1.ObjectMeta) object {
	return object{
		// One copy of the name serves all that is in the namespace.
		namespace: unique.Make(m.Namespace).Value(), name: m.Name, uid: m.UID, resourceVersion: m.ResourceVersion,
		created: m.CreationTimestamp.Time, deleting: m.DeletionTimestamp != nil,
		protected: lifecycle.ProtectionMarks(m.Labels, m.Annotations),
	}
}

// namespace is a Namespace.
type namespace struct {
	object
	labels, annotations map[string]string

	// deletedAt is since when it is Terminating, heldBy what keeps it so.
	deletedAt time.Time
	heldBy    []string
}

// pod is a Pod.
type pod struct {
	object

	// deployment and userType are its labels.
	deployment, userType string

	// live says that it is in no terminal phase: what it does may be work.
	live bool

	ready bool
	// readyAt is when ready last changed; when the Pod was created if it never did.
	readyAt time.Time

	// changedAt is when it last changed, by its own word: for what no reaper saw happen.
	changedAt time.Time

	// looping names a container that crashes again and again.
	looping string

	// ended is how the agent ended, if it is dead with 42.
	ended *ending

	// claims are those that it mounts, unless it was made by a ReplicaSet or a Job, which says the same.
	claims []string

	// digest changes with what counts as activity.
	digest uint64
}

// ending is an agent's exit with 42, as the kubelet reports it.
type ending struct {
	finished time.Time
	lifetime time.Duration

	// sidecar says that there is one, which asks for the deletion itself.
	sidecar bool

	// restarted says that the kubelet has started the container again since, in which the manager holds.
	restarted bool
}

// workload is what makes Pods.
type workload struct {
	object
	kind string

	// wants says that there should be a Pod, or that there may be one without anybody's doing.
	wants bool

	// owner is kind/name of the workload that made it and answers for it: a ReplicaSet's Deployment, a Job's CronJob. Of other owners
	// nothing is known.
	owner string

	// scaledBy names what else scales it, as far as it says so itself.
	scaledBy string

	// claims are those that the template mounts.
	claims []string

	// labels are those of a Deployment; nil for other kinds.
	labels map[string]string
}

// claim is a PersistentVolumeClaim, service a Service.
type (
	claim   struct{ dependent }
	service struct{ dependent }
)

// dependent is what belongs to an agent.
type dependent struct {
	object
	labels        map[string]string
	owners        []metav1.OwnerReference
	orphanedSince string
}

// recordOf returns what is remembered of an object as the API server describes it; nil for one of another kind.
func recordOf(o runtime.Object) record {
	switch o := o.(type) {
	case *corev1.Namespace:
		return namespaceOf(o)
	case *corev1.Pod:
		return podOf(o)
	case *corev1.PersistentVolumeClaim:
		return &claim{dependentOf(&o.ObjectMeta)}
	case *corev1.Service:
		return &service{dependentOf(&o.ObjectMeta)}
	case *autoscalingv2.HorizontalPodAutoscaler:
		return scalerOf(o)
	case *appsv1.Deployment:
		w := workloadOf(o, &o.ObjectMeta, "Deployment", wantsReplicas(o.Spec.Replicas))
		w.labels = ours(o.Labels)
		return w
	case *appsv1.ReplicaSet:
		return workloadOf(o, &o.ObjectMeta, "ReplicaSet", wantsReplicas(o.Spec.Replicas))
	case *appsv1.StatefulSet:
		return workloadOf(o, &o.ObjectMeta, "StatefulSet", wantsReplicas(o.Spec.Replicas))
	case *appsv1.DaemonSet:
		return workloadOf(o, &o.ObjectMeta, "DaemonSet", true)
	case *corev1.ReplicationController:
		return workloadOf(o, &o.ObjectMeta, "ReplicationController", wantsReplicas(o.Spec.Replicas))
	case *batchv1.Job:
		return workloadOf(o, &o.ObjectMeta, "Job", finishedAt(o).IsZero())
	case *batchv1.CronJob:
		return workloadOf(o, &o.ObjectMeta, "CronJob", o.Spec.Suspend == nil || !*o.Spec.Suspend)
	}
	return nil
}

func namespaceOf(o *corev1.Namespace) *namespace {
	n := &namespace{object: newObject(&o.ObjectMeta), labels: o.Labels, annotations: o.Annotations}
	if o.DeletionTimestamp == nil {
		return n
	}
	n.deletedAt = o.DeletionTimestamp.Time
	for _, f := range o.Finalizers {
		n.heldBy = append(n.heldBy, "finalizer "+f)
	}
	for _, f := range o.Spec.Finalizers {
		n.heldBy = append(n.heldBy, "finalizer "+string(f))
	}
	for _, c := range o.Status.Conditions {
		if c.Status == corev1.ConditionTrue {
			n.heldBy = append(n.heldBy, c.Message)
		}
	}
	return n
}

func podOf(o *corev1.Pod) *pod {
	p := &pod{
		object: newObject(&o.ObjectMeta), deployment: o.Labels[lifecycle.LabelDeployment], userType: o.Labels[lifecycle.LabelUserType],
		live: o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed, readyAt: o.CreationTimestamp.Time,
		changedAt: o.CreationTimestamp.Time,
	}
	digest := fnv.New64a()
	_, _ = io.WriteString(digest, string(o.UID)+string(o.Status.Phase))
	for i := range o.Status.Conditions {
		if c := &o.Status.Conditions[i]; c.Type == corev1.PodReady {
			p.ready, p.readyAt = c.Status == corev1.ConditionTrue, c.LastTransitionTime.Time
			_, _ = io.WriteString(digest, string(c.Status))
		}
		p.changedAt = latest(p.changedAt, o.Status.Conditions[i].LastTransitionTime.Time)
	}
	for _, statuses := range [][]corev1.ContainerStatus{o.Status.InitContainerStatuses, o.Status.ContainerStatuses} {
		for i := range statuses {
			s := &statuses[i]
			if s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff" {
				p.looping = s.Name
			}
			if s.State.Terminated != nil {
				p.changedAt = latest(p.changedAt, s.State.Terminated.FinishedAt.Time)
			}
			_, _ = io.WriteString(digest, s.Name+strconv.Itoa(int(s.RestartCount))+strconv.FormatBool(s.State.Running != nil))
		}
	}
	if c := metav1.GetControllerOfNoCopy(o); c == nil || c.APIVersion+" "+c.Kind != "apps/v1 ReplicaSet" && c.APIVersion+" "+c.Kind != "batch/v1 Job" {
		p.claims = claimsOf(&o.Spec)
	}
	p.digest, p.ended = digest.Sum64(), endingOf(o)
	return p
}

// endingOf returns how the agent ended, if it is dead with 42. A signal is never 42.
//
// Where a sidecar asks for the deletion, and the kubelet leaves the agent dead, an agent that runs again is at work. Where there is no
// sidecar there are no restart rules either: the kubelet starts the container again at once, and the manager in it holds, so that its
// last exit is what counts.
func endingOf(o *corev1.Pod) *ending {
	i, err := workloads.AgentContainerOfPod(o, "")
	if err != nil {
		return nil
	}
	sidecar := false
	for j := range o.Spec.Containers {
		sidecar = sidecar || o.Spec.Containers[j].Name == lifecycle.SidecarContainer
	}
	began := o.CreationTimestamp
	if o.Status.StartTime != nil {
		began = *o.Status.StartTime
	}
	for j := range o.Status.ContainerStatuses {
		s := &o.Status.ContainerStatuses[j]
		if s.Name != o.Spec.Containers[i].Name {
			continue
		}
		t, restarted := s.State.Terminated, false
		if t == nil && !sidecar {
			t, restarted = s.LastTerminationState.Terminated, true
		}
		if t == nil || t.ExitCode != lifecycle.ExitIdle || t.Signal != 0 {
			return nil
		}
		if !t.StartedAt.IsZero() { // a Pod's life begins before its images are pulled
			began = t.StartedAt
		}
		return &ending{finished: t.FinishedAt.Time, lifetime: t.FinishedAt.Sub(began.Time), sidecar: sidecar, restarted: restarted}
	}
	return nil
}

func workloadOf(o runtime.Object, m *metav1.ObjectMeta, kind string, wants bool) *workload {
	w := &workload{object: newObject(m), kind: kind, wants: wants && m.DeletionTimestamp == nil, scaledBy: workloads.ScaledBy(m)}
	if c := metav1.GetControllerOfNoCopy(m); c != nil {
		switch kind + " of " + c.APIVersion + " " + c.Kind {
		case "ReplicaSet of apps/v1 Deployment", "Job of batch/v1 CronJob":
			w.owner = c.Kind + "/" + c.Name
		}
	}
	if w.owner == "" { // else its owner's template says the same
		for _, spec := range podSpecs(o) {
			w.claims = append(w.claims, claimsOf(spec)...)
		}
	}
	return w
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func wantsReplicas(n *int32) bool { return n == nil || *n > 0 }

// finishedAt is when a Job finished; zero while it has not.
func finishedAt(job *batchv1.Job) time.Time {
	for _, c := range job.Status.Conditions {
		if (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Time
		}
	}
	return time.Time{}
}

func claimsOf(spec *corev1.PodSpec) []string {
	var names []string
	for i := range spec.Volumes {
		if source := spec.Volumes[i].PersistentVolumeClaim; source != nil {
			names = append(names, source.ClaimName)
		}
	}
	return names
}

func dependentOf(m *metav1.ObjectMeta) dependent {
	return dependent{
		object: newObject(m), labels: ours(m.Labels), owners: m.OwnerReferences,
		orphanedSince: m.Annotations[lifecycle.AnnotationOrphanedSince],
	}
}

// ours keeps the labels that say whose an object is.
func ours(labels map[string]string) map[string]string {
	return only(labels, lifecycle.LabelDeployment, lifecycle.LabelUserType)
}

// only keeps some keys of a map; nil if it has none of them.
func only(all map[string]string, keys ...string) map[string]string {
	var kept map[string]string
	for _, key := range keys {
		if value, has := all[key]; has {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[key] = value
		}
	}
	return kept
}
