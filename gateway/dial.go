package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const (
	// dialTimeout bounds one attempt to connect: within a cluster an answer comes at once or never.
	dialTimeout = 2 * time.Second

	// lookEvery is how often an agent is looked at again that is ready and takes no connection.
	lookEvery = 200 * time.Millisecond

	// ensureEvery is how often it is made sure that an agent for which requests wait is there. Whoever makes it may have been
	// seen to, and its Deployment may have gone again.
	ensureEvery = 2 * time.Second
)

// see returns what is known of a user's agent, and the Pod that serves it or is to.
func (g *Gateway) see(user string) (Status, *corev1.Pod, error) {
	name := Name(user)
	s, pod := g.fleet.look(name)
	if d, err := g.fleet.deployments.Get(name); err == nil && d.Annotations[lifecycle.AnnotationUser] != escapeUser(user) {
		return s, nil, fmt.Errorf("%w: Deployment %s has annotation %s %q", errForeign, name,
			lifecycle.AnnotationUser, d.Annotations[lifecycle.AnnotationUser])
	}
	return g.describe(user, s), pod, nil
}

// dial connects to a user's agent, and returns its Pod. One that sleeps is woken, and waited for until WakeTimeout. Nothing has been sent on the connection,
// so that as many attempts may be made as it takes.
func (g *Gateway) dial(ctx context.Context, user string) (net.Conn, *corev1.Pod, error) {
	s, pod, err := g.see(user)
	if err != nil {
		return nil, nil, err
	}
	if s.Ready {
		if conn, err := g.connectTo(ctx, pod); err == nil {
			return conn, pod, nil
		}
	}
	release, ok := g.limiter.held.take(s.UserType)
	if !ok {
		g.options.Metrics.limited.WithLabelValues(limitedHeld).Inc()
		return nil, nil, fmt.Errorf("%w: %d wait for their agents", errLimited, len(g.limiter.held.all))
	}
	defer release()
	began := g.options.Now()
	conn, pod, err := g.wake(ctx, user)
	g.options.Metrics.waited(g.options.Now().Sub(began), outcome(ctx, err))
	return conn, pod, err
}

func outcome(ctx context.Context, err error) string {
	switch {
	case err == nil:
		return outcomeReady
	case ctx.Err() != nil:
		return outcomeHungUp
	case errors.Is(err, errTime):
		return outcomeLate
	}
	return outcomeFailed
}

func (g *Gateway) wake(ctx context.Context, user string) (net.Conn, *corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, g.options.WakeTimeout)
	defer cancel()
	changed, unlisten := g.fleet.listen(Name(user))
	defer unlisten()
	var ensured time.Time
	for {
		s, pod, err := g.see(user)
		if err != nil {
			return nil, nil, err
		}
		why := s.Reason
		if s.Ready {
			conn, err := g.connectTo(ctx, pod)
			if err == nil {
				return conn, pod, nil
			}
			why = err.Error()
		}
		if now := g.options.Now(); now.Sub(ensured) >= ensureEvery {
			if _, err := g.ensure(ctx, user, nil); err != nil {
				return nil, nil, err
			}
			ensured = g.options.Now()
			continue
		}
		select {
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("%w: %s", errTime, why)
		case <-changed:
		case <-time.After(lookEvery):
		}
	}
}

func (g *Gateway) connectTo(ctx context.Context, pod *corev1.Pod) (net.Conn, error) {
	if err := g.confirm(ctx, pod); err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", g.options.Address(pod, g.port))
}
