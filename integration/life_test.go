package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// life is an agent that runs as far as the API server knows: there is no kubelet here, and no container.
type life struct {
	*cluster
	deployment *appsv1.Deployment
	pod        *corev1.Pod

	// sidecar is the access that its sidecar has: a token of its service account, bound to its Pod.
	sidecar *rest.Config
}

// live creates an agent and waits for its Pod.
func (c *cluster) live(t *testing.T, name string, changes ...func(*appsv1.Deployment)) *life {
	t.Helper()
	d := agent(name, changes...)
	c.create(t, d)
	l := &life{cluster: c, deployment: d, pod: c.podOf(t, name)}
	l.sidecar = c.token(t, l.pod.Spec.ServiceAccountName, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: l.pod.Name, UID: l.pod.UID,
	})
	return l
}

// ofType sets an agent's user type.
func ofType(userType lifecycle.UserType) func(*appsv1.Deployment) {
	return func(d *appsv1.Deployment) {
		metav1.SetMetaDataLabel(&d.ObjectMeta, lifecycle.LabelUserType, string(userType))
	}
}

// token is the access of whoever holds a token of an account in the agents' namespace.
func (c *cluster) token(t *testing.T, account string, bound *authenticationv1.BoundObjectReference) *rest.Config {
	t.Helper()
	return c.tokenOf(t, agents, account, bound)
}

// tokenOf is the access of whoever holds a token of an account.
func (c *cluster) tokenOf(
	t *testing.T, namespace, account string, bound *authenticationv1.BoundObjectReference,
) *rest.Config {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}}
	issued, err := kubernetes.NewForConfigOrDie(c.plane.Config).CoreV1().ServiceAccounts(namespace).
		CreateToken(t.Context(), account, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(c.plane.Config)
	config.BearerToken = issued.Status.Token
	return config
}

// judged is the access of an account with a Pod's token and every right, so that a test is about admission and not about
// RBAC.
func (c *cluster) judged(account string, pod *corev1.Pod, uid string) *rest.Config {
	user := controlplane.ServiceAccount(agents, account)
	user.Groups = append(user.Groups, "system:masters")
	user.Extra = map[string][]string{
		"authentication.kubernetes.io/pod-name": {pod.Name}, "authentication.kubernetes.io/pod-uid": {uid},
	}
	return c.plane.Impersonate(user)
}

// gateway is a client of the gateway's account with every right, so that a test is about admission.
func (c *cluster) gateway(t *testing.T) client.Client {
	t.Helper()
	user := controlplane.ServiceAccount(installation.SystemNamespace, "gateway")
	user.Groups = append(user.Groups, "system:masters")
	gateway, err := client.New(c.plane.Impersonate(user), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return gateway
}

// exits writes the Pod's status as the kubelet does after the agent's end.
func (l *life) exits(t *testing.T, code int32) {
	t.Helper()
	l.exited(t, code, time.Now())
}

// exited writes the Pod's status where the kubelet is late.
func (l *life) exited(t *testing.T, code int32, at time.Time) {
	t.Helper()
	l.reported(t, code, at, func(*corev1.PodStatus, *corev1.ContainerStatus) {})
}

// reported writes the Pod's status with something else about the agent's container.
func (l *life) reported(t *testing.T, code int32, at time.Time, change func(*corev1.PodStatus, *corev1.ContainerStatus)) {
	t.Helper()
	ended, began := metav1.NewTime(at), metav1.NewTime(at.Add(-time.Minute))
	pod := l.pod.DeepCopy()
	pod.Status.Phase, pod.Status.StartTime = corev1.PodRunning, &began
	pod.Status.ContainerStatuses = nil
	for _, container := range pod.Spec.Containers {
		status := corev1.ContainerStatus{Name: container.Name, Image: container.Image, ContainerID: "containerd://" + container.Name}
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: began}
		if container.Name == "agent" {
			status.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
				ExitCode: code, StartedAt: began, FinishedAt: ended, ContainerID: status.ContainerID,
			}}
			change(&pod.Status, &status)
		}
		pod.Status.ContainerStatuses = append(pod.Status.ContainerStatuses, status)
	}
	pod.ResourceVersion = ""
	if err := l.Client.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
}

// reply is what an HTTP client is told.
type reply struct {
	code       int
	retryAfter string
	status     metav1.Status // of a refusal
}

// deletes sends a DELETE as a sidecar does, without a client that would try again by itself. It may be called from any
// goroutine.
func (c *cluster) deletes(ctx context.Context, as *rest.Config, path string, options *metav1.DeleteOptions) (reply, error) {
	return call(ctx, as, http.MethodDelete, path, "application/json", options)
}

func call(ctx context.Context, as *rest.Config, method, path, contentType string, body any) (reply, error) {
	httpClient, err := rest.HTTPClientFor(as)
	if err != nil {
		return reply{}, err
	}
	content, err := json.Marshal(body)
	if err != nil {
		return reply{}, err
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(as.Host, "/")+path, bytes.NewReader(content))
	if err != nil {
		return reply{}, err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := httpClient.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return reply{}, err
	}
	r := reply{code: response.StatusCode, retryAfter: response.Header.Get("Retry-After")}
	if r.code >= http.StatusBadRequest {
		err = json.Unmarshal(answer, &r.status)
	}
	return r, err
}

func deploymentPath(name string) string {
	return "/apis/apps/v1/namespaces/" + agents + "/deployments/" + name
}

func claimPath(name string) string {
	return "/api/v1/namespaces/" + agents + "/persistentvolumeclaims/" + name
}

// deletesItself asks as the sidecar does.
func (l *life) deletesItself(ctx context.Context) (reply, error) {
	return l.deletes(ctx, l.sidecar, deploymentPath(l.deployment.Name), foreground())
}

func foreground() *metav1.DeleteOptions {
	return &metav1.DeleteOptions{PropagationPolicy: ptr(metav1.DeletePropagationForeground)}
}

// refused fails the test unless the answer is a refusal with this code that says why.
func refused(t *testing.T, got reply, err error, code int, why string) {
	t.Helper()
	if err != nil {
		t.Error(err)
		return
	}
	if got.code != code || !strings.Contains(got.status.Message, why) {
		t.Errorf("answered with %d %q, want %d with %q", got.code, got.status.Message, code, why)
	}
}

// isJudged says whether a refusal is one by the policy, as a sidecar sees it.
func (r *reply) isJudged() bool {
	return r.status.Details != nil && slices.ContainsFunc(r.status.Details.Causes,
		func(c metav1.StatusCause) bool { return c.Type == lifecycle.CauseJudged })
}

// accepted fails the test unless the answer is that it will be done.
func accepted(t *testing.T, got reply, err error) {
	t.Helper()
	if err != nil || got.code != http.StatusOK && got.code != http.StatusAccepted {
		t.Errorf("answered with %d %q, %v; want 200", got.code, got.status.Message, err)
	}
}
