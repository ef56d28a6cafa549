package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// maxManagerBody bounds what goes to a lifecycle manager and comes from it, in bytes, as that does itself.
	maxManagerBody = 64 << 10

	// managerTimeout is for one answer of it.
	managerTimeout = 10 * time.Second

	// touchEvery is how often an agent is told that somebody connects to it.
	touchEvery = 15 * time.Second
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

// touch tells the agent's lifecycle manager that somebody has connected, so that an agent which knows nothing of idleness is not taken
// for idle while it is used. That it does not answer is no error: it may have none.
func (g *Gateway) touch(user string) {
	name := Name(user)
	if !g.touched.due(name) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), managerTimeout)
		defer cancel()
		if pod := g.fleet.podOf(name); pod != nil && serving(pod) && g.confirm(ctx, pod) == nil {
			response, err := g.post(ctx, pod, "/v1/activity", []byte(`{"source":"gateway"}`))
			if err == nil {
				response.Body.Close()
			}
		}
	}()
}

// touches remembers who was touched lately.
type touches struct {
	now func() time.Time
	mu  sync.Mutex
	at  map[string]time.Time
}

func newTouches(now func() time.Time) *touches { return &touches{now: now, at: map[string]time.Time{}} }

func (t *touches) due(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now.Sub(t.at[name]) < touchEvery {
		return false
	}
	if len(t.at) >= maxBuckets {
		clear(t.at)
	}
	t.at[name] = now
	return true
}
