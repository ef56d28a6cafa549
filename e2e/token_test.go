//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const agentAccount = "agent-lifecycle"

// asSidecar is a client with a token of the agents' account, bound to a Pod as the sidecar's is; to none without one.
func asSidecar(t *testing.T, pod *corev1.Pod) kubernetes.Interface {
	t.Helper()
	request := &authenticationv1.TokenRequest{}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	}
	issued, err := client.CoreV1().ServiceAccounts(agentsNamespace).CreateToken(t.Context(), agentAccount, request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	anonymous := rest.AnonymousClientConfig(config)
	anonymous.BearerToken = issued.Status.Token
	c, err := kubernetes.NewForConfig(anonymous)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asPod is a client that the API server takes for the agents' account with a token of that Pod and UID. No such token
// is handed out for a UID that is not the Pod's.
func asPod(t *testing.T, name, uid string) kubernetes.Interface {
	t.Helper()
	c := rest.CopyConfig(config)
	c.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + agentsNamespace + ":" + agentAccount,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + agentsNamespace, "system:authenticated"},
		Extra: map[string][]string{
			"authentication.kubernetes.io/pod-name": {name}, "authentication.kubernetes.io/pod-uid": {uid},
		},
	}
	impersonated, err := kubernetes.NewForConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	return impersonated
}

// TestToken tries everything that somebody could with the token of a sidecar: nothing goes but the agent itself.
func TestToken(t *testing.T) {
	t.Parallel()
	a, neighbour := bear(t, "token-a"), bear(t, "token-a-b")
	claim(t, neighbour.name)
	claim(t, a.name)
	mine := asSidecar(t, a.pod)
	deployments := mine.AppsV1().Deployments(agentsNamespace)
	orphan := metav1.DeletePropagationOrphan
	for _, attempt := range []struct {
		name string
		do   func(context.Context) error
		want string // in the message
	}{
		{"a neighbour whose name begins like its own", func(ctx context.Context) error {
			return deployments.Delete(ctx, neighbour.name, metav1.DeleteOptions{})
		}, "agents delete only what is their own"},
		{"itself from the neighbour, whose Pod's name begins so", func(ctx context.Context) error {
			return asSidecar(t, neighbour.pod).AppsV1().Deployments(agentsNamespace).Delete(ctx, a.name, metav1.DeleteOptions{})
		}, "an agent deletes itself and nobody else"},
		{"all at once", func(ctx context.Context) error {
			return deployments.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{})
		}, "cannot deletecollection"},
		{"a neighbour's claim", func(ctx context.Context) error {
			return mine.CoreV1().PersistentVolumeClaims(agentsNamespace).Delete(ctx, neighbour.name+"-data", metav1.DeleteOptions{})
		}, "cannot delete"},
		{"leaving its Pods behind", func(ctx context.Context) error {
			return deployments.Delete(ctx, a.name, metav1.DeleteOptions{PropagationPolicy: &orphan})
		}, "Orphan"},
		{"a change", func(ctx context.Context) error {
			_, err := deployments.Patch(ctx, a.name, types.MergePatchType, []byte(`{"spec": {"replicas": 0}}`), metav1.PatchOptions{})
			return err
		}, "cannot patch"},
		{"a new one", func(ctx context.Context) error {
			_, err := deployments.Create(ctx, newAgent("token-new"), metav1.CreateOptions{})
			return err
		}, "cannot create"},
		{"an eviction", func(ctx context.Context) error {
			return mine.PolicyV1().Evictions(agentsNamespace).Evict(ctx,
				&policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: neighbour.pod.Name, Namespace: agentsNamespace}})
		}, "cannot create"},
		{"itself, with a token of no Pod", func(ctx context.Context) error {
			return asSidecar(t, nil).AppsV1().Deployments(agentsNamespace).Delete(ctx, a.name, metav1.DeleteOptions{})
		}, "bound to a Pod"},
		{"itself, as a Pod of the same name that is not there any more", func(ctx context.Context) error {
			return asPod(t, a.pod.Name, string(neighbour.pod.UID)).AppsV1().Deployments(agentsNamespace).Delete(ctx, a.name, metav1.DeleteOptions{})
		}, "but the token is bound to one of UID"},
		{"itself, while it runs", func(ctx context.Context) error {
			return deployments.Delete(ctx, a.name, metav1.DeleteOptions{})
		}, "has not reported that container"},
	} {
		t.Run(attempt.name, func(t *testing.T) {
			err := attempt.do(t.Context())
			if err == nil || !strings.Contains(err.Error(), attempt.want) {
				t.Errorf("got %v, want a refusal with %q", err, attempt.want)
			}
		})
	}
	t.Run("with the token of a Pod that has gone", func(t *testing.T) {
		if err := client.CoreV1().Pods(agentsNamespace).Delete(t.Context(), a.pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		a.awaitOther(a.pod.Name)
		err := deployments.Delete(t.Context(), a.name, metav1.DeleteOptions{})
		if err == nil || apierrors.IsNotFound(err) {
			t.Errorf("got %v, want a refusal", err)
		}
	})
	a.expectKept()
	neighbour.expectKept()
}

// awaitOther waits until the agent runs in another Pod than the one of that name.
func (l *life) awaitOther(pod string) {
	l.t.Helper()
	eventually(l.t, lifeTimeout, func(ctx context.Context) error {
		pods, err := l.pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != 1 || pods[0].Name == pod {
			return fmt.Errorf("the old Pod is still there, or no other: %s", describePods(pods))
		}
		return nil
	})
	l.awaitRunning()
}
