//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/dexorder/agent-lifecycle/gateway"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// user is somebody whose agent the gateway makes.
type user struct {
	*life
	frontend *frontend
	id       string
}

// newUser is a user for the length of the test, of whom nothing is left afterwards.
func newUser(t *testing.T, f *frontend, id string) *user {
	t.Helper()
	u := &user{&life{t: t, name: gateway.Name(id)}, f, id}
	t.Cleanup(func() {
		keepEvidence(t)
		ctx := context.WithoutCancel(t.Context())
		err := client.AppsV1().Deployments(agentsNamespace).Delete(ctx, u.name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
		err = client.CoreV1().PersistentVolumeClaims(agentsNamespace).Delete(ctx, u.name+"-data", metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Error(err)
		}
	})
	return u
}

func (u *user) path(rest string) string { return "/v1/agents/" + url.PathEscape(u.id) + rest }

// want sends a request of the user's to the gateway, and fails unless it is answered with code.
func (u *user) want(code int, method, rest, body string) *answer {
	u.t.Helper()
	a, err := u.frontend.ask(u.t.Context(), own, method, u.path(rest), body)
	if err != nil {
		u.t.Fatal(err)
	}
	if a.code != code {
		u.t.Fatalf("%s %s of %s: %d %s, want %d", method, rest, u.id, a.code, a.body, code)
	}
	return a
}

// put asks for an agent, for which time goes so many times faster.
func (u *user) put(code int, userType lifecycle.UserType, faster int) {
	u.t.Helper()
	u.want(code, http.MethodPut, "", fmt.Sprintf(`{"userType": %q, "env": {"HURRY": "%d"}}`, userType, faster))
	d, err := client.AppsV1().Deployments(agentsNamespace).Get(u.t.Context(), u.name, metav1.GetOptions{})
	if err != nil {
		u.t.Fatal(err)
	}
	u.deployment = d
}

// status is what the gateway says of the user's agent.
func (u *user) status() gateway.Status {
	u.t.Helper()
	var s gateway.Status
	u.want(http.StatusOK, http.MethodGet, "", "").into(u.t, &s)
	return s
}

// save leaves a file with the agent.
func (u *user) save(content string) {
	u.t.Helper()
	if a := u.want(http.StatusOK, http.MethodPost, "/connect/data?content="+url.QueryEscape(content), ""); a.body != "done\n" {
		u.t.Fatalf("the file is not saved: %s", a.body)
	}
}

// expectFile fails unless the agent has the file.
func (u *user) expectFile(content string) {
	u.t.Helper()
	if a := u.want(http.StatusOK, http.MethodGet, "/connect/data", ""); a.body != content {
		u.t.Errorf("the agent has the file %q, want %q", a.body, content)
	}
}

// echoed is what an agent answers with.
type echoed struct{ Pod, Method, ID, Body string }

// echo sends something to the agent from any goroutine.
func (u *user) echo(ctx context.Context, id string) (*echoed, error) {
	a, err := u.frontend.ask(ctx, own, http.MethodPost, u.path("/connect/echo?id="+id), "hello "+id)
	if err != nil || a.code != http.StatusOK {
		return nil, fmt.Errorf("%s's request %s: %+v, %w", u.id, id, a, err)
	}
	e := &echoed{}
	if err := json.Unmarshal([]byte(a.body), e); err != nil || e.ID != id || e.Body != "hello "+id {
		return nil, fmt.Errorf("%s's request %s was answered with %s, %w", u.id, id, a.body, err)
	}
	return e, nil
}

// claim is the agent's storage; nil is none.
func (u *user) claim() *corev1.PersistentVolumeClaim {
	u.t.Helper()
	c, err := client.CoreV1().PersistentVolumeClaims(agentsNamespace).Get(u.t.Context(), u.name+"-data", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		u.t.Fatal(err)
	}
	return c
}
