//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	agentImage = "ghcr.io/dexorder/e2e-agent:e2e"

	// minimumLifetime is the policy's, and a little more: an agent that ends sooner is not idle but broken.
	minimumLifetime = 11 * time.Second

	// lifeTimeout is for an agent to come up, or to go, on a machine that has other things to do.
	lifeTimeout = 4 * time.Minute
)

// life is an agent that runs.
type life struct {
	t    *testing.T
	name string

	// container is the name that the agent's container has.
	container string

	deployment *appsv1.Deployment
	pod        *corev1.Pod
}

// withUserType makes the agent a user's of that type.
func withUserType(userType lifecycle.UserType) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) { d.Labels = map[string]string{lifecycle.LabelUserType: string(userType)} }
}

// withManager runs the agent under the lifecycle manager, with a setting of its own.
func withManager(setting string) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.Containers[0].Command = []string{
			"/bin/e2e-agent", "with", setting, "/bin/lifecycle-manager", "exec", "--", "/bin/e2e-agent",
		}
	}
}

// withClaim mounts the agent's claim, which the test makes with claim.
func withClaim(d *appsv1.Deployment) {
	pod := &d.Spec.Template.Spec
	pod.Volumes = append(pod.Volumes, corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: d.Name + "-data"},
	}})
	pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "data", MountPath: "/data"})
}

// bear creates an agent and returns when it runs.
func bear(t *testing.T, name string, changes ...func(*appsv1.Deployment)) *life {
	t.Helper()
	l := &life{t: t, name: name}
	l.create(changes...)
	l.awaitRunning()
	return l
}

func (l *life) create(changes ...func(*appsv1.Deployment)) {
	l.t.Helper()
	agent := newAgent(l.name)
	container := &agent.Spec.Template.Spec.Containers[0]
	container.Image = agentImage
	container.ReadinessProbe = &corev1.Probe{
		PeriodSeconds: 1,
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromInt32(8080)}},
	}
	for _, change := range changes {
		change(agent)
	}
	l.container = container.Name
	l.deployment = createAgent(l.t, agent)
	l.t.Cleanup(func() { keepEvidence(l.t) }) // before the agent goes
}

// awaitRunning waits for the agent's Pod to be ready.
func (l *life) awaitRunning() {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		for i := range pods {
			for _, c := range pods[i].Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pods[i].DeletionTimestamp == nil {
					l.pod = &pods[i]
					return nil
				}
			}
		}
		return fmt.Errorf("agent %s is not ready: %s", l.name, describePods(pods))
	})
}

// awaitAge waits until the agent is old enough to end as idle.
func (l *life) awaitAge() {
	l.t.Helper()
	for _, c := range l.pod.Status.ContainerStatuses {
		if c.Name == l.container && c.State.Running != nil {
			time.Sleep(time.Until(c.State.Running.StartedAt.Add(minimumLifetime)))
		}
	}
}

func (l *life) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := client.CoreV1().Pods(agentsNamespace).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + l.name})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func describePods(pods []corev1.Pod) string {
	var b strings.Builder
	for i := range pods {
		fmt.Fprintf(&b, "%s %s", pods[i].Name, pods[i].Status.Phase)
		for _, c := range pods[i].Status.ContainerStatuses {
			state, _ := json.Marshal(c.State)
			last, _ := json.Marshal(c.LastTerminationState)
			fmt.Fprintf(&b, "; %s: %s, before %s", c.Name, state, last)
		}
	}
	return b.String()
}

// call sends a request to the agent.
func (l *life) call(method, path string, params ...string) (string, error) {
	request := client.CoreV1().RESTClient().Verb(method).Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name + ":8080").
		SubResource("proxy").Suffix(path)
	for i := 0; i+1 < len(params); i += 2 {
		request = request.Param(params[i], params[i+1])
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 20*time.Second)
	defer cancel()
	body, err := request.DoRaw(ctx)
	return string(body), err
}

// must is call where a failure ends the test.
func (l *life) must(method, path string, params ...string) string {
	l.t.Helper()
	body, err := l.call(method, path, params...)
	if err != nil {
		l.t.Fatalf("%s %s: %v: %s", method, path, err, body)
	}
	return body
}

// leave42 ends an agent as its lifecycle manager would: with the word, and the code.
func (l *life) leave42() {
	l.t.Helper()
	l.awaitAge()
	l.must("POST", "exit", "code", "42", "file", "42")
}

// exit lets the agent end with a code, once it is old enough.
func (l *life) exit(code int) {
	l.t.Helper()
	l.awaitAge()
	l.must("POST", "exit", "code", fmt.Sprint(code))
}

// expectGone waits until Deployment, ReplicaSets, Pods and Service of the agent have gone.
func (l *life) expectGone() {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		if d, err := client.AppsV1().Deployments(agentsNamespace).Get(ctx, l.name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			if err == nil && d.UID != l.deployment.UID {
				return nil
			}
			pods, _ := l.pods(ctx)
			return errors.Join(fmt.Errorf("agent %s is there: %s", l.name, describePods(pods)), err)
		}
		selector := metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + l.name}
		sets, err := client.AppsV1().ReplicaSets(agentsNamespace).List(ctx, selector)
		if err != nil || len(sets.Items) > 0 {
			return fmt.Errorf("ReplicaSets of %s: %v, %w", l.name, sets, err)
		}
		pods, err := l.pods(ctx)
		if err != nil || len(pods) > 0 {
			return fmt.Errorf("Pods of %s: %s, %w", l.name, describePods(pods), err)
		}
		if _, err := client.CoreV1().Services(agentsNamespace).Get(ctx, l.name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Service %s is there: %w", l.name, err)
		}
		return nil
	})
}

// expectKept fails if the agent is deleted, or goes to be, within some seconds.
func (l *life) expectKept() {
	l.t.Helper()
	for deadline := time.Now().Add(6 * time.Second); time.Now().Before(deadline); time.Sleep(time.Second) {
		d, err := client.AppsV1().Deployments(agentsNamespace).Get(l.t.Context(), l.name, metav1.GetOptions{})
		if err != nil {
			l.t.Fatalf("the agent should have been kept: %v", err)
		}
		if d.DeletionTimestamp != nil || d.UID != l.deployment.UID {
			l.t.Fatalf("the agent should have been kept, but it is being deleted")
		}
	}
}

// expectRestarted waits until the kubelet has started the agent's container again in the same Pod.
func (l *life) expectRestarted(wantCode int32) {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		pod, err := client.CoreV1().Pods(agentsNamespace).Get(ctx, l.pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.ContainerStatuses {
			last := c.LastTerminationState.Terminated
			if c.Name == lifecycle.AgentContainer && c.RestartCount > 0 && c.State.Running != nil && last != nil {
				if last.ExitCode != wantCode {
					l.t.Fatalf("the agent ended with %d, want %d", last.ExitCode, wantCode)
				}
				return nil
			}
		}
		return fmt.Errorf("the agent was not started again: %s", describePods([]corev1.Pod{*pod}))
	})
}

// sidecarLog returns what the sidecar said.
func (l *life) sidecarLog() string {
	data, err := client.CoreV1().Pods(agentsNamespace).GetLogs(l.pod.Name,
		&corev1.PodLogOptions{Container: lifecycle.SidecarContainer}).DoRaw(l.t.Context())
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// expectSidecarSays waits for a message in the sidecar's log.
func (l *life) expectSidecarSays(messages ...string) {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(context.Context) error {
		said := l.sidecarLog()
		for _, m := range messages {
			if strings.Contains(said, m) {
				return nil
			}
		}
		return fmt.Errorf("the sidecar has not said %q:\n%s", messages, said)
	})
}

// exec runs a command in the agent's container, as a session from outside, and returns its exit code.
func (l *life) exec(command ...string) (int, string) {
	l.t.Helper()
	id := strings.TrimPrefix(l.status(lifecycle.AgentContainer).ContainerID, "containerd://")
	return onNode(l.t, append([]string{"crictl", "exec", id}, command...)...)
}

// status is what the kubelet reports of a container now.
func (l *life) status(container string) corev1.ContainerStatus {
	l.t.Helper()
	pod, err := client.CoreV1().Pods(agentsNamespace).Get(l.t.Context(), l.pod.Name, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == container {
			return c
		}
	}
	l.t.Fatalf("nothing is reported of container %s: %s", container, describePods([]corev1.Pod{*pod}))
	return corev1.ContainerStatus{}
}

// killSidecar ends the sidecar as a crash would.
func (l *life) killSidecar() {
	l.t.Helper()
	l.sidecarKiller()()
}

// sidecarKiller finds the sidecar, for a kill in the right moment. The sidecar may have gone by itself then.
func (l *life) sidecarKiller() (kill func()) {
	l.t.Helper()
	id := strings.TrimPrefix(l.status(lifecycle.SidecarContainer).ContainerID, "containerd://")
	pid := strings.TrimSpace(mustOnNode(l.t, "crictl", "inspect", "--output", "go-template", "--template", "{{.info.pid}}", id))
	return func() {
		l.t.Helper()
		code, out := onNode(l.t, "sh", "-c", "kill -9 "+pid)
		if code != 0 && !strings.Contains(out, "No such process") {
			l.t.Fatalf("kill the sidecar: %s", out)
		}
	}
}

// awaitOwned waits until the reaper has said of the agent's claim or Service that they are the agent's.
func (l *life) awaitOwned() {
	l.t.Helper()
	selector := metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + l.name}
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		claims, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).List(ctx, selector)
		if err != nil {
			return err
		}
		services, err := client.CoreV1().Services(agentsNamespace).List(ctx, selector)
		if err != nil {
			return err
		}
		var objects []metav1.ObjectMeta
		for i := range claims.Items {
			objects = append(objects, claims.Items[i].ObjectMeta)
		}
		for i := range services.Items {
			objects = append(objects, services.Items[i].ObjectMeta)
		}
		if len(objects) == 0 {
			return errors.New("the agent has neither claim nor Service")
		}
		for i := range objects {
			if len(objects[i].OwnerReferences) != 1 || objects[i].OwnerReferences[0].UID != l.deployment.UID {
				return fmt.Errorf("%s is not owned by the agent: %v", objects[i].Name, objects[i].OwnerReferences)
			}
		}
		return nil
	})
}

// claim creates the agent's claim as somebody would by hand, for the length of the test.
func claim(t *testing.T, name string) {
	t.Helper()
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-data", Labels: map[string]string{lifecycle.LabelDeployment: name}},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceStorage: resource.MustParse("16Mi"),
			}},
		},
	}
	claims := client.CoreV1().PersistentVolumeClaims(agentsNamespace)
	if _, err := claims.Create(t.Context(), c, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = claims.Delete(context.WithoutCancel(t.Context()), c.Name, metav1.DeleteOptions{}) })
}

// service creates the agent's Service.
func service(t *testing.T, name string) {
	t.Helper()
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{lifecycle.LabelDeployment: name}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
	}
	services := client.CoreV1().Services(agentsNamespace)
	if _, err := services.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = services.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}) })
}
