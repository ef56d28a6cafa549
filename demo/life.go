package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	visitor = "agent-visitor"

	// patience is what the visitor's agent gets instead of its tier's 15 minutes. It has to live for ten seconds, or ending
	// would be taken for a failed start.
	patience = 12 * time.Second

	// sceneTimeout bounds what the cluster takes for one step.
	sceneTimeout = time.Minute

	// sidecarLog and terminationLog are what the sidecar leaves in the directory of its run.
	sidecarLog, terminationLog = "sidecar.log", "termination-log"
)

// idleAgent lets an anonymous user's agent go idle: a real process under the real lifecycle manager, watched by the real
// sidecar. There is no kubelet, so the demo writes what one would report.
func (d *demo) idleAgent(ctx context.Context) error {
	if err := d.cluster.StartControllerManager(ctx); err != nil {
		return err
	}
	d.say("kube-controller-manager runs: it makes Pods of Deployments, and takes away what has no owner")
	pod, err := d.createVisitor(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "agent-lifecycle-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	kubeconfig, err := d.sidecarKubeconfig(ctx, pod, dir)
	if err != nil {
		return err
	}

	agent, err := d.startAgent(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { _ = agent.Process.Kill() }()
	sidecar, err := d.startSidecar(ctx, dir, kubeconfig, agent.Process.Pid)
	if err != nil {
		return err
	}
	defer func() { _ = sidecar.Process.Kill() }()
	started := time.Now()
	if err := d.report(ctx, pod, corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(started)}}, started); err != nil {
		return err
	}
	d.say("the agent runs as process %d under lifecycle-manager, the sidecar as %d with a token that is bound to its Pod",
		agent.Process.Pid, sidecar.Process.Pid)
	d.say("nobody talks to the agent for %s ...", patience)
	if err := agent.Wait(); err == nil || agent.ProcessState.ExitCode() != lifecycle.ExitIdle {
		return fmt.Errorf("the agent ended with %v, want exit code %d", agent.ProcessState, lifecycle.ExitIdle)
	}
	ended := time.Now()
	d.say("the agent was idle and ended with exit code %d; the sidecar asks, and the server waits for the kubelet's word", lifecycle.ExitIdle)
	time.Sleep(300 * time.Millisecond) // about what a kubelet takes
	state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: lifecycle.ExitIdle, StartedAt: metav1.NewTime(started), FinishedAt: metav1.NewTime(ended), ContainerID: "demo://1",
	}}
	if err := d.report(ctx, pod, state, started); err != nil {
		return err
	}
	d.say("(there is no kubelet here: the demo has written into the Pod's status what one reports)")
	if err := d.awaitGone(ctx); err != nil {
		said, _ := os.ReadFile(filepath.Join(dir, sidecarLog)) // it is there since the sidecar was started
		return fmt.Errorf("%w; the sidecar says:\n%s", err, said)
	}
	d.say("Deployment, Pod and the visitor's storage are gone, %.1f s after the agent ended", time.Since(ended).Seconds())
	if err := sidecar.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := sidecar.Wait(); err != nil {
		return err
	}
	why, err := os.ReadFile(filepath.Join(dir, terminationLog))
	if err != nil {
		return err
	}
	d.say("the sidecar leaves in its termination message: %s", strings.TrimSpace(string(why)))
	return nil
}

// createVisitor makes the agent and its claim, and returns its Pod once the claim goes with the agent.
func (d *demo) createVisitor(ctx context.Context) (*corev1.Pod, error) {
	agent, err := d.readAgent()
	if err != nil {
		return nil, err
	}
	agent.Name, agent.Labels = visitor, map[string]string{lifecycle.LabelUserType: string(lifecycle.Anonymous)}
	agent.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": visitor}}
	agent.Spec.Template.Labels = map[string]string{"app": visitor}
	agent.Spec.Template.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{
		PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: visitor + "-data"},
	}
	claim := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: agent.Namespace, Name: visitor + "-data", Labels: map[string]string{lifecycle.LabelDeployment: visitor},
		},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}
	for _, o := range []client.Object{agent, claim} {
		if err := d.client.Create(ctx, o); err != nil {
			return nil, err
		}
	}
	var pods corev1.PodList
	err = wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, sceneTimeout, true, func(ctx context.Context) (bool, error) {
		if err := d.client.Get(ctx, client.ObjectKeyFromObject(claim), claim); err != nil {
			return false, err
		}
		err := d.client.List(ctx, &pods, client.InNamespace(agent.Namespace), client.MatchingLabels{lifecycle.LabelDeployment: visitor})
		return len(pods.Items) == 1 && len(claim.OwnerReferences) == 1, err
	})
	if err != nil {
		return nil, fmt.Errorf("the agent's Pod, and the owner of its claim: %w", err)
	}
	d.say("an anonymous visitor's agent is there, with a claim; the reaper has seen to it that the claim goes with the agent")
	return &pods.Items[0], nil
}

// sidecarKubeconfig gives the sidecar what it has in a Pod: a token of the agents' account that is bound to the Pod.
func (d *demo) sidecarKubeconfig(ctx context.Context, pod *corev1.Pod, dir string) (string, error) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName}}
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID},
	}}
	if err := d.client.SubResource("token").Create(ctx, account, token); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "kubeconfig")
	const only = "sidecar"
	content, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{only: {Server: d.cluster.Config.Host, CertificateAuthorityData: d.cluster.Config.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{only: {Token: token.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{only: {Cluster: only, AuthInfo: only}},
		CurrentContext: only,
	})
	if err != nil {
		return "", err
	}
	if content, err = yaml.YAMLToJSON(content); err != nil {
		return "", err
	}
	return file, os.WriteFile(file, content, 0o600)
}

func (d *demo) startAgent(ctx context.Context, dir string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.programs, "lifecycle-manager"), "exec", "--run-dir", dir, "--", "sleep", "3600")
	cmd.Env = append(os.Environ(), lifecycle.EnvIdleTimeoutMinutes+"="+strconv.FormatFloat(patience.Minutes(), 'f', -1, 64),
		lifecycle.EnvIdleWarningSeconds+"=3")
	return cmd, start(cmd)
}

func (d *demo) startSidecar(ctx context.Context, dir, kubeconfig string, pid int) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.programs, "lifecycle-sidecar"), "--kubeconfig", kubeconfig, "--run-dir", dir,
		"--termination-log", filepath.Join(dir, terminationLog))
	cmd.Env = append(os.Environ(), lifecycle.EnvNamespace+"="+installation.AgentsNamespace, lifecycle.EnvDeploymentName+"="+visitor,
		"MAIN_CONTAINER_PID="+strconv.Itoa(pid))
	log, err := os.Create(filepath.Join(dir, sidecarLog))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stderr = log
	return cmd, start(cmd)
}

// start starts a program that ends with the demo, whatever becomes of that.
func start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// report writes what a kubelet would of the agent's container.
func (d *demo) report(ctx context.Context, pod *corev1.Pod, state corev1.ContainerState, started time.Time) error {
	at := metav1.NewTime(started)
	if err := d.client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
		return err
	}
	pod.Status.StartTime = &at
	pod.Status.Phase = corev1.PodRunning
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: lifecycle.AgentContainer, State: state, Image: "demo", ImageID: "demo"}}
	return d.client.Status().Update(ctx, pod)
}

func (d *demo) awaitGone(ctx context.Context) error {
	key := client.ObjectKey{Namespace: installation.AgentsNamespace, Name: visitor}
	claim := client.ObjectKey{Namespace: key.Namespace, Name: visitor + "-data"}
	err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, sceneTimeout, true, func(ctx context.Context) (bool, error) {
		var pods corev1.PodList
		err := d.client.List(ctx, &pods, client.InNamespace(key.Namespace), client.MatchingLabels{lifecycle.LabelDeployment: visitor})
		if err != nil {
			return false, err
		}
		gone := len(pods.Items) == 0 && apierrors.IsNotFound(d.client.Get(ctx, key, &appsv1.Deployment{})) &&
			apierrors.IsNotFound(d.client.Get(ctx, claim, &corev1.PersistentVolumeClaim{}))
		return gone, nil
	})
	if err != nil {
		return errors.Join(errors.New("the agent has not gone"), err)
	}
	return nil
}
