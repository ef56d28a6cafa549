//go:build e2e

package installation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	agentImage = "ghcr.io/dexorder/e2e-agent:e2e"

	// roleNamespace is that of a role agent.
	roleNamespace = "agent-e2e"

	// minimumLifetime is the policy's, and a little more: an agent that ends sooner is not idle but broken.
	minimumLifetime = 11 * time.Second
)

// newAgent is what a careful user writes: everything that restricted Pod Security asks for, so that it runs without the
// server, too. Its claim is the one of its name, if there is one.
func newAgent(namespace, name string, userType lifecycle.UserType) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	agent := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{}},
		Spec: appsv1.DeploymentSpec{
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					AutomountServiceAccountToken: new(false),
					Containers: []corev1.Container{{
						Name:  lifecycle.AgentContainer,
						Image: agentImage,
						Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
						Resources: corev1.ResourceRequirements{
							Requests: corev1.ResourceList{
								corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
							},
							Limits: corev1.ResourceList{
								corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
							},
						},
						ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
							HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")},
						}},
						SecurityContext: &corev1.SecurityContext{
							RunAsNonRoot: new(true), RunAsUser: new(int64(1000)),
							AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
							Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
							SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
						},
					}},
				},
			},
		},
	}
	if namespace == agentsNamespace {
		agent.Labels[lifecycle.LabelUserType] = string(userType)
		agent.Spec.Template.Spec.ServiceAccountName = "agent-lifecycle"
	}
	return agent
}

// createAgent creates an agent and does not wait for it. An error is for the caller to judge.
func createAgent(ctx context.Context, agent *appsv1.Deployment) error {
	_, err := client.AppsV1().Deployments(agent.Namespace).Create(ctx, agent, metav1.CreateOptions{})
	return err
}

// createAgentWithClaim gives the agent a claim of its own at /data.
func createAgentWithClaim(t *testing.T, agent *appsv1.Deployment) {
	t.Helper()
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: agent.Name, Namespace: agent.Namespace, Labels: map[string]string{lifecycle.LabelDeployment: agent.Name},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse("1Mi"),
			}},
		},
	}
	if _, err := client.CoreV1().PersistentVolumeClaims(agent.Namespace).Create(t.Context(), claim, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &agent.Spec.Template.Spec
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name},
	}})
	pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/data"})
	if err := createAgent(t.Context(), agent); err != nil {
		t.Fatal(err)
	}
}

// tryAgent creates an agent in a dry run. One that came through without a sidecar was not seen by the server.
func tryAgent(ctx context.Context) error {
	agent := newAgent(agentsNamespace, "agent-try", lifecycle.Free)
	stored, err := client.AppsV1().Deployments(agentsNamespace).Create(ctx, agent, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(stored.Spec.Template.Spec.Containers,
		func(c corev1.Container) bool { return c.Name == lifecycle.SidecarContainer }) {
		return errors.New("the agent was admitted without a sidecar")
	}
	return nil
}

// startFleet starts agents of every kind and waits until they run.
func startFleet(t *testing.T) {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: roleNamespace, Labels: map[string]string{
		lifecycle.LabelAgentRole: "tester", lifecycle.LabelOrg: "dexorder", lifecycle.LabelEnvironment: "e2e",
	}}}
	if _, err := client.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, userType := range []lifecycle.UserType{lifecycle.Anonymous, lifecycle.Paid, lifecycle.Enterprise} {
		if err := createAgent(t.Context(), newAgent(agentsNamespace, "agent-"+string(userType), userType)); err != nil {
			t.Fatal(err)
		}
	}
	createAgentWithClaim(t, newAgent(agentsNamespace, "agent-claim", lifecycle.Free))
	if err := createAgent(t.Context(), newAgent(roleNamespace, "tester", "")); err != nil {
		t.Fatal(err)
	}
	awaitRunning(t)
	for name, life := range fleet(t) {
		if life.Claim == "" && len(life.Restarts) != 2 {
			t.Errorf("agent %s runs without its sidecar: %+v", name, life)
		}
	}
}

// life is what must stay as it is for an agent not to notice that something was installed or removed.
type life struct {
	Deployment, Pod, TemplateHash string
	Restarts                      map[string]int32
	Claim                         string
}

// fleet is every agent's life, and every claim's.
func fleet(t *testing.T) map[string]life {
	t.Helper()
	lives, err := readFleet(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lives
}

func readFleet(ctx context.Context) (map[string]life, error) {
	lives := map[string]life{}
	for _, namespace := range []string{agentsNamespace, roleNamespace} {
		deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		claims, err := client.CoreV1().PersistentVolumeClaims(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range deployments.Items {
			d := &deployments.Items[i]
			lives[namespace+"/"+d.Name] = life{Deployment: string(d.UID)}
		}
		for i := range pods.Items {
			p := &pods.Items[i]
			key := namespace + "/" + p.Labels["app"]
			l := lives[key]
			if l.Pod != "" {
				return nil, fmt.Errorf("agent %s has two Pods, one is %s", key, p.Name)
			}
			l.Pod, l.TemplateHash, l.Restarts = string(p.UID), p.Labels["pod-template-hash"], map[string]int32{}
			for _, c := range p.Status.ContainerStatuses {
				l.Restarts[c.Name] = c.RestartCount
			}
			lives[key] = l
		}
		for i := range claims.Items {
			c := &claims.Items[i]
			lives["claim "+namespace+"/"+c.Name] = life{Claim: string(c.UID) + string(c.Status.Phase)}
		}
	}
	return lives, nil
}

// awaitRunning waits until every agent has one Pod that is ready.
func awaitRunning(t *testing.T) {
	t.Helper()
	defer took(t, "until agents run", time.Now())
	eventually(t, func(ctx context.Context) error {
		for _, namespace := range []string{agentsNamespace, roleNamespace} {
			deployments, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{})
			if err != nil {
				return err
			}
			for i := range deployments.Items {
				d := &deployments.Items[i]
				if d.Status.ObservedGeneration < d.Generation || d.Status.ReadyReplicas != 1 {
					return fmt.Errorf("agent %s/%s is not ready: %+v", namespace, d.Name, d.Status)
				}
			}
		}
		_, err := readFleet(ctx) // none has two Pods
		return err
	})
}

// expectUntouched fails the test if an agent of before has noticed anything.
func expectUntouched(t *testing.T, before map[string]life) {
	t.Helper()
	after := fleet(t)
	for name := range after {
		if _, ok := before[name]; !ok {
			delete(after, name) // it came later
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("agents were touched (-before +after):\n%s", diff)
	}
}

// endIdle ends an agent with 42 as its lifecycle manager would, once it is old enough.
func endIdle(t *testing.T, name string) {
	t.Helper()
	pods, err := client.CoreV1().Pods(agentsNamespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + name})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("agent %s has %d Pods, want 1: %v", name, len(pods.Items), err)
	}
	// Its container may have started long after its Pod.
	for _, c := range pods.Items[0].Status.ContainerStatuses {
		if c.Name == lifecycle.AgentContainer && c.State.Running != nil {
			time.Sleep(time.Until(c.State.Running.StartedAt.Add(minimumLifetime)))
		}
	}
	request := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(pods.Items[0].Name+":8080").
		SubResource("proxy").Suffix("exit").Param("code", "42").Param("file", "42")
	if said, err := request.DoRaw(t.Context()); err != nil {
		t.Fatalf("agent %s: %v: %s", name, err, said)
	}
}

// expectGone waits until an agent's Deployment and Pods are gone.
func expectGone(t *testing.T, name string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if _, err := client.AppsV1().Deployments(agentsNamespace).Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("agent %s is there: %w", name, err)
		}
		pods, err := client.CoreV1().Pods(agentsNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil || len(pods.Items) > 0 {
			return fmt.Errorf("agent %s has %d Pods: %w", name, len(pods.Items), err)
		}
		return nil
	})
}

// eventually polls until a condition holds; the error that it returned last is what the test fails with.
func eventually(t *testing.T, condition func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(context.WithoutCancel(t.Context()), pollInterval, clusterTimeout, true,
		func(ctx context.Context) (bool, error) {
			err := condition(ctx)
			if ctx.Err() == nil || last == nil { // what was cut off by the end tells nothing
				last = err
			}
			return err == nil, nil
		})
	if err != nil {
		t.Fatalf("after %s: %v", clusterTimeout, last)
	}
}
