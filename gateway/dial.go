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

	// awayEvery is how often a request that makes an agent is tried again while the API server cannot do it.
	awayEvery = time.Second
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
	case errors.Is(err, errTime), isAway(err):
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
	var away error // why the agent could not be made last time
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
			var b *brought
			b, err = g.ensure(ctx, user, nil)
			ensured = g.options.Now()
			switch {
			case isAway(err):
				away = err // it may be back in a moment, and nobody is told to come again for that
			case err != nil:
				return nil, nil, err
			case scaledToZero(b.deployment):
				return nil, nil, errScaledToZero
			default:
				away = nil
				continue
			}
		}
		select {
		case <-ctx.Done():
			if away != nil {
				return nil, nil, away
			}
			return nil, nil, fmt.Errorf("%w: %s", errTime, why)
		case <-g.draining:
			return nil, nil, errStopping
		case <-changed:
		case <-time.After(lookEvery):
		}
	}
}

func (g *Gateway) connectTo(ctx context.Context, pod *corev1.Pod) (net.Conn, error) {
	if err := g.confirm(ctx, pod); err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", g.options.Address(pod, g.port))
	if err != nil {
		g.options.Logger.Debug("An agent takes no connection", "pod", pod.Name, "error", err)
		return nil, fmt.Errorf("the agent's Pod %s is ready and takes no connection on port %d", pod.Name, g.port)
	}
	return conn, nil
}
