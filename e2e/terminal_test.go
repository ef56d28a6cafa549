//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// transcript is what a terminal has shown.
type transcript struct {
	mu    sync.Mutex
	shown strings.Builder
}

func (t *transcript) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.Write(p)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.shown.String()
}

// An agent with a terminal reads what is typed at `kubectl attach -it`, under its manager as without one, and goes
// when it is idle.
func TestAttach(t *testing.T) {
	t.Parallel()
	l := bear(t, "attach-terminal", withManager("IDLE_TIMEOUT_MINUTES=0.5"), func(d *appsv1.Deployment) {
		c := &d.Spec.Template.Spec.Containers[0]
		c.TTY, c.Stdin = true, true
	})
	typed, keyboard := io.Pipe()
	defer keyboard.Close()
	screen := &transcript{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	attached := make(chan error, 1)
	go func() { attached <- l.attach(ctx, typed, screen) }()
	eventually(t, clusterTimeout, func(context.Context) error {
		select {
		case err := <-attached:
			t.Fatalf("the session has ended: %v; the terminal shows:\n%s", err, screen)
		default:
		}
		if _, err := io.WriteString(keyboard, "hello\n"); err != nil {
			return err
		}
		time.Sleep(time.Second)
		if !strings.Contains(screen.String(), `you said "hello"`) {
			return fmt.Errorf("the terminal shows %q", screen)
		}
		return nil
	})
	cancel()
	if err := <-attached; err != nil && !errors.Is(err, context.Canceled) {
		t.Logf("the session ended with %v", err)
	}
	l.expectGone()
}

// attach is `kubectl attach -it`.
func (l *life) attach(ctx context.Context, typed io.Reader, screen io.Writer) error {
	request := client.CoreV1().RESTClient().Post().Namespace(agentsNamespace).Resource("pods").Name(l.pod.Name).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{Container: l.container, Stdin: true, Stdout: true, TTY: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(config, "GET", request.URL().String())
	if err != nil {
		return err
	}
	return executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: typed, Stdout: screen, Tty: true})
}
