package fleet

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/policy"
	"github.com/dexorder/agent-lifecycle/policy/v1alpha1"
	"github.com/dexorder/agent-lifecycle/workload"
)

// Entry is one agent in a list.
type Entry struct {
	Namespace, Name string

	// AgentStatus has its state. Of an agent that runs, Reason is what keeps it alive, by its lifecycle manager.
	workload.AgentStatus

	// UserType is that of its label; empty where it has none.
	UserType lifecycle.UserType

	// Asked says that its lifecycle manager has answered. Without an answer nobody knows when it stops.
	Asked bool

	// NeverStops says why it does not stop by itself, Protected why its Deployment is not deleted though it does, and
	// Scaler what sets its replicas and may start it again, which does not keep it from being deleted. Each is empty
	// where that is not so.
	NeverStops, Protected, Scaler string

	// SidecarImage is empty where it has none.
	SidecarImage string
	Sidecar      Sidecar

	// Upgrade is what an upgrade would change of it, for people. OtherParts says that the sidecar's image is none of that.
	Upgrade    []string
	OtherParts bool

	// Storage is none, kept or temporary: whether what it has stored outlives it. StorageProtected says why it does
	// although its tier would delete it.
	Storage, StorageProtected string
}

// Stays says why the agent is not deleted when it is idle, for people; nothing if it is.
func (e *Entry) Stays() []string {
	var all []string
	if e.NeverStops != "" {
		all = append(all, e.NeverStops)
	}
	if e.Protected != "" {
		all = append(all, "its Deployment is protected: "+e.Protected)
	}
	return all
}

// asking bounds how many agents are asked at once what they do. One that does not answer takes askTimeout.
const asking = 64

// Lister shows agents.
type Lister struct {
	Cluster *Cluster
	Judge   *Judge

	// Namespace is empty for every one that the policy covers.
	Namespace string

	// Selector is of labels of Deployments, Name that of the only one. Empty means all.
	Selector, Name string

	// Now is the clock.
	Now func() time.Time
}

// List hands an Entry of every agent to each, by namespace and name. unread lists what the caller has no right to
// read, for people; the entries do not show it.
func (l *Lister) List(ctx context.Context, each func(Entry) error) (unread []string, err error) {
	namespaces, err := l.Cluster.Namespaces(ctx, l.Namespace, l.Judge.Covers)
	if err != nil {
		return nil, err
	}
	around, unread, err := l.Cluster.surroundings(ctx, l.Namespace, l.Now())
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	observing := make(chan chan Entry, asking) // in the order of the list
	group.Go(func() error {
		defer close(observing)
		return l.eachDeployment(ctx, func(d *appsv1.Deployment) error {
			n, ok := namespaces[d.Namespace]
			if !ok {
				return nil
			}
			found := make(chan Entry, 1)
			select {
			case observing <- found:
			case <-ctx.Done():
				return ctx.Err()
			}
			group.Go(func() error {
				e, err := l.observe(ctx, n, d, around)
				if err != nil {
					return err
				}
				found <- e
				return nil
			})
			return nil
		})
	})
	group.Go(func() error {
		for found := range observing {
			select {
			case e := <-found:
				if err := each(e); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return unread, group.Wait()
}

// eachDeployment goes through the Deployments that are meant.
func (l *Lister) eachDeployment(ctx context.Context, do func(*appsv1.Deployment) error) error {
	if l.Name == "" {
		return l.Cluster.eachDeployment(ctx, l.Namespace, l.Selector, do)
	}
	var list *appsv1.DeploymentList
	err := patiently(ctx, func(ctx context.Context) (err error) {
		list, err = l.Cluster.client.AppsV1().Deployments(l.Namespace).List(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + l.Name})
		return err
	})
	if err != nil {
		return fmt.Errorf("look for Deployment %q%s: %w", l.Name, inNamespace(l.Namespace), err)
	}
	for i := range list.Items {
		if err := do(&list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// observe asks the agent of a Deployment what it does, if it runs.
func (l *Lister) observe(ctx context.Context, n Namespace, d *appsv1.Deployment, around *surroundings) (Entry, error) {
	pods, err := l.Cluster.podsOf(ctx, d)
	if err != nil {
		return Entry{}, err
	}
	var pod *corev1.Pod
	for i := range pods {
		if pod == nil || workload.PodBefore(&pods[i], pod) {
			pod = &pods[i]
		}
	}
	var answer said
	if pod != nil && pod.Status.Phase == corev1.PodRunning && pod.DeletionTimestamp == nil && !notRunning(pod) {
		answer.status, answer.err = l.Cluster.ask(ctx, pod)
	}
	return l.Judge.entry(n, d, pod, answer, around, l.Now()), nil
}

// notRunning says whether the kubelet says that the agent's container does not run: then nothing there can answer.
func notRunning(pod *corev1.Pod) bool {
	s := workload.AgentContainerStatus(pod)
	return s != nil && s.State.Running == nil && (s.State.Waiting != nil || s.State.Terminated != nil)
}

func (j *Judge) entry(n Namespace, d *appsv1.Deployment, pod *corev1.Pod, answer said, around *surroundings, now time.Time) Entry {
	status := answer.status
	e := Entry{
		Namespace: d.Namespace, Name: d.Name, UserType: lifecycle.UserType(d.Labels[lifecycle.LabelUserType]), Asked: status != nil,
		Protected: lifecycle.ProtectionOf(d, now), Scaler: around.scalerOf(d),
		AgentStatus: workload.AgentStatusOf(workload.AgentView{
			Deployment: d, Pod: pod, Manager: reported(status), Deprovisioned: n.Annotations[lifecycle.AnnotationDeprovisioned],
		}),
	}
	switch {
	case !e.Ready:
	case status != nil:
		e.Reason = keptBy(status, now)
	case answer.err != nil:
		e.Reason = fmt.Sprintf("%s; what it does is not known: %v", e.Reason, answer.err)
	}
	tier := j.tierOf(n.Name, d)
	switch {
	case tier.Shutdown != v1alpha1.ShutdownWhenIdle:
		e.NeverStops = fmt.Sprintf("agents of user type %s never stop", j.userTypeOf(n.Name, d))
	case status != nil && !status.IdleShutdown:
		e.NeverStops = "its lifecycle manager says that idle shutdown is off"
	}
	e.Sidecar, e.SidecarImage = j.SidecarOf(d.Namespace, d)
	if e.Sidecar != SidecarCurrent {
		renewed, _ := j.Renewed(d.Namespace, d)
		e.Upgrade, e.OtherParts = Changes(d, renewed), imageOf(policy.SidecarOf(renewed)) == e.SidecarImage
	}
	e.Storage = "none"
	if len(workload.Claims(&d.Spec.Template.Spec)) > 0 {
		e.Storage = "kept"
		if tier.Storage == v1alpha1.StorageDelete {
			if e.StorageProtected = around.protectedClaim(d); e.StorageProtected == "" {
				e.Storage = "temporary"
			}
		}
	}
	return e
}

// userTypeOf is the user type of a Deployment, as admission has it: without a label the default of the namespace's
// profile.
func (j *Judge) userTypeOf(namespace string, d *appsv1.Deployment) lifecycle.UserType {
	if label, has := d.Labels[lifecycle.LabelUserType]; has {
		return lifecycle.UserType(label)
	}
	for i := range j.file.Profiles {
		if profile := &j.file.Profiles[i]; profile.Namespaces.Covers(namespace) {
			return profile.DefaultUserType
		}
	}
	return ""
}

// tierOf is the tier of a Deployment. What is of no user type is of none, which stops nothing and keeps everything.
func (j *Judge) tierOf(namespace string, d *appsv1.Deployment) v1alpha1.Tier {
	return j.file.Tiers[j.userTypeOf(namespace, d)]
}
