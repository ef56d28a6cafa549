package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	namespace = "dexorder-agents"

	// minimumAge is the policy's minimumLifetime, and a little more.
	minimumAge = 11 * time.Second

	// patience is for an agent to come up, or to go.
	patience = 2 * time.Minute
)

// agent is an agent that is measured, with a claim.
type agent struct {
	client kubernetes.Interface
	name   string
	pod    string
}

// bear creates the agent and returns when it is old enough to end as idle.
func (a *agent) bear(ctx context.Context, image string) error {
	made, err := a.client.AppsV1().Deployments(namespace).Create(ctx, a.deployment(image), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	owner := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: a.name, UID: made.UID, BlockOwnerDeletion: new(true)}
	_, err = a.client.CoreV1().PersistentVolumeClaims(namespace).Create(ctx, a.claim(owner), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	var started time.Time
	err = wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(ctx context.Context) (bool, error) {
		pods, err := a.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: lifecycle.LabelDeployment + "=" + a.name})
		if err != nil {
			return false, err
		}
		for i := range pods.Items {
			if at, ok := allReady(pods.Items[i].Status.ContainerStatuses); ok {
				a.pod, started = pods.Items[i].Name, at
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("agent %s does not come up: %w", a.name, err)
	}
	return sleep(ctx, time.Until(started.Add(minimumAge)))
}

// allReady says since when all containers run, if they do.
func allReady(statuses []corev1.ContainerStatus) (since time.Time, ok bool) {
	for i := range statuses {
		if !statuses[i].Ready || statuses[i].State.Running == nil {
			return time.Time{}, false
		}
		if at := statuses[i].State.Running.StartedAt.Time; at.After(since) {
			since = at
		}
	}
	return since, len(statuses) > 0
}

// end lets the agent exit with 42 and returns when nothing of it is left.
func (a *agent) end(ctx context.Context, w *watcher) (record, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// What the two containers say is lost with the Pod: it is read while it is said.
	exit := a.hear(ctx, lifecycle.AgentContainer, func(line []byte) (time.Time, bool) {
		var said struct {
			Event    string
			UnixNano int64
		}
		err := json.Unmarshal(line, &said)
		return time.Unix(0, said.UnixNano), err == nil && said.Event == "exit"
	})
	known := a.hear(ctx, lifecycle.SidecarContainer, func(line []byte) (time.Time, bool) {
		var said struct {
			Msg  string
			At   time.Time
			Idle bool
		}
		err := json.Unmarshal(line, &said)
		return said.At, err == nil && said.Msg == "Agent ended" && said.Idle
	})
	request := a.client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(a.pod+":8080").
		SubResource("proxy").Suffix("exit").Param("code", "42").Param("file", "42")
	if _, err := request.DoRaw(ctx); err != nil {
		return record{}, fmt.Errorf("agent %s cannot be told to end: %w", a.name, err)
	}
	seen, err := w.gone(ctx, a.name)
	if err != nil {
		return record{}, err
	}
	r := record{proof: seen.proof, accepted: seen.accepted, gone: seen.gone}
	var errs [2]error
	r.exit, errs[0] = (<-exit).get()
	r.known, errs[1] = (<-known).get()
	return r, errors.Join(errs[:]...)
}

// heard is the time that somebody said.
type heard struct {
	at  time.Time
	err error
}

func (h heard) get() (time.Time, error) { return h.at, h.err }

// hear follows what a container says until it says what is looked for.
func (a *agent) hear(ctx context.Context, container string, find func([]byte) (time.Time, bool)) <-chan heard {
	result := make(chan heard, 1)
	go func() {
		options := &corev1.PodLogOptions{Container: container, Follow: true}
		stream, err := a.client.CoreV1().Pods(namespace).GetLogs(a.pod, options).Stream(ctx)
		if err != nil {
			result <- heard{err: err}
			return
		}
		defer stream.Close()
		lines := bufio.NewScanner(stream)
		for lines.Scan() {
			if at, found := find(lines.Bytes()); found {
				result <- heard{at: at}
				return
			}
		}
		result <- heard{err: fmt.Errorf("container %s of Pod %s has not said when the agent ended: %w", container, a.pod, lines.Err())}
	}()
	return result
}

// remove takes away what is left when a measurement failed.
func (a *agent) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = a.client.AppsV1().Deployments(namespace).Delete(ctx, a.name, metav1.DeleteOptions{})
	_ = a.client.CoreV1().PersistentVolumeClaims(namespace).Delete(ctx, a.name+"-data", metav1.DeleteOptions{})
}

func (a *agent) deployment(image string) *appsv1.Deployment {
	labels := map[string]string{"app": a.name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: a.name, Labels: map[string]string{lifecycle.LabelUserType: string(lifecycle.Anonymous)}},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					Containers: []corev1.Container{{
						Name:  lifecycle.AgentContainer,
						Image: image,
						Resources: corev1.ResourceRequirements{
							Requests: resources("1m", "16Mi"),
							Limits:   resources("100m", "64Mi"),
						},
						VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
					}},
					Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
						PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: a.name + "-data"},
					}}},
				},
			},
		},
	}
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

func (a *agent) claim(owner metav1.OwnerReference) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name:            a.name + "-data",
			Labels:          map[string]string{lifecycle.LabelDeployment: a.name},
			OwnerReferences: []metav1.OwnerReference{owner},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("16Mi")},
			},
		},
	}
}
