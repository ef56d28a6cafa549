package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// maxManagerBody bounds what goes to a lifecycle manager and comes from it, in bytes, as that does itself.
	maxManagerBody = 64 << 10

	// managerTimeout is for one answer of it.
	managerTimeout = 10 * time.Second
)

var errManager = errors.New("the agent's lifecycle manager does not answer")

// managers is how lifecycle managers are spoken to.
var managers = transport{headerTimeout: managerTimeout, small: true}.client(managerTimeout)

// forward passes a request on to the lifecycle manager of a user's agent, and what that answers back. It wakes nobody: an agent that is
// not there has no activity, and nothing to put off.
func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, user, path string) error {
	s, pod, err := g.see(user)
	if err != nil {
		return err
	}
	if !s.Ready {
		return fmt.Errorf("%w: it is %s: %s", errAsleep, s.State, s.Reason)
	}
	if err := g.confirm(r.Context(), pod); err != nil {
		return err
	}
	body, err := readBody(w, r, maxManagerBody)
	if err != nil {
		return err
	}
	response, err := g.post(r.Context(), pod, path, body)
	if err != nil {
		g.options.Logger.Info("A lifecycle manager does not answer", "user", user, "pod", pod.Name, "error", err)
		return errManager
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxManagerBody))
	if err != nil {
		return errManager
	}
	// An agent can answer what it likes: as what it says, never as a redirect or a page.
	if response.StatusCode < http.StatusOK || response.StatusCode >= http.StatusMultipleChoices && response.StatusCode < http.StatusBadRequest {
		return errManager
	}
	if len(answer) > 0 {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(answer) // who has hung up cannot be told
	return nil
}

func (g *Gateway) post(ctx context.Context, pod *corev1.Pod, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.options.Address(pod, lifecycle.ManagerPort)+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return g.send(managers, request, pod, body)
}

// tellUse tells the lifecycle manager of an agent's Pod that the agent is used, so that an agent which knows nothing of idleness is
// not taken for idle. That the manager does not answer is no error: the agent may have none. The API server need not be asked whether
// the Pod has its address still: the connection by which the agent is used stands.
func (g *Gateway) tellUse(pod *corev1.Pod) {
	now := g.fleet.current(pod)
	if now == nil || now.Status.PodIP != pod.Status.PodIP || now.DeletionTimestamp != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), managerTimeout)
	defer cancel()
	response, err := g.post(ctx, now, "/v1/activity", []byte(`{"source":"gateway"}`))
	if err != nil {
		g.options.Logger.Debug("A lifecycle manager was not told that its agent is used", "pod", pod.Name, "error", err)
		return
	}
	response.Body.Close()
}
