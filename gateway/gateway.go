package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/dexorder/agent-lifecycle/activity"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// Tiers says what becomes of an agent that is idle, and of its storage, by its user type.
type Tiers interface {
	// StopsWhenIdle says whether agents of a user type are stopped and deleted when they are idle.
	StopsWhenIdle(userType lifecycle.UserType) bool

	// DeletesStorage says whether a user type's storage goes with the agent.
	DeletesStorage(userType lifecycle.UserType) bool
}

// NoticeType says what an agent said of itself.
type NoticeType string

// What agents say of themselves.
const (
	// NoticeIdle: nothing keeps it alive any more.
	NoticeIdle NoticeType = "idle"

	// NoticeWarning: it stops at the Deadline if nothing happens.
	NoticeWarning NoticeType = "warning"
)

// Notice is something that an agent said of itself. It is the agent's word and nobody else's.
type Notice struct {
	Type       NoticeType
	Namespace  string
	Deployment string
	UID        types.UID // the Deployment's
	UserType   lifecycle.UserType
	Pod        string

	// Since is when the agent became idle, Deadline when it stops. Each is set for its type.
	Since, Deadline time.Time
}

// Announcer tells others what agents say. It must not block.
type Announcer interface {
	Announce(n Notice)
}

// Options of a Gateway. All are required but Announcer, Authenticator, Signer and Address.
type Options struct {
	Client    kubernetes.Interface
	Namespace string
	Template  *Template
	Tiers     Tiers

	// DefaultUserType is whom an agent works for that nobody said it of.
	DefaultUserType lifecycle.UserType

	// Authenticator says who calls; nil lets everybody in.
	Authenticator Authenticator

	// LoopbackWithoutToken lets callers on the same machine in without a token. It is for development.
	LoopbackWithoutToken bool

	// Signer signs what lifecycle managers are told and asked; nil leaves it unsigned.
	Signer *activity.Signer

	// Announcer hears what agents say; nil is nobody.
	Announcer Announcer

	// Address returns where a port of an agent's Pod answers, as host:port. Default: the Pod's IP.
	Address func(pod *corev1.Pod, port int32) string

	// WakeTimeout bounds how long a request waits for an agent to be ready, old one's end included.
	WakeTimeout time.Duration

	// Drain is for how long requests are served on after Run's context has ended, while others learn of it; Grace is what
	// connections that still stand get after that.
	Drain, Grace time.Duration

	Limits  Limits
	Now     func() time.Time
	Metrics *Metrics
	Logger  *slog.Logger
}

// Gateway makes agents and connects users with them. It is safe for concurrent use.
type Gateway struct {
	options Options
	fleet   *fleet
	watcher *watcher
	limiter *limiter
	flights singleflight.Group
	uses    *uses
	nonces  *nonces
	// strangers are the connections on which nobody has shown a good token.
	strangers *strangers
	// confirmed are the Pods that were asked for lately.
	confirmed *confirmations

	// draining is closed when streams have to end.
	draining chan struct{}

	// delivering counts the requests that are being delivered to agents, connections that were taken over included. When
	// connections ends, which cut brings about, they end too.
	delivering  atomic.Int64
	connections context.Context
	cut         context.CancelFunc

	// farewells are the places of connections that are told that they should speak HTTP/1.1.
	farewells chan struct{}

	// port is the agent's in its Pod, servicePort the one of its Service.
	port, servicePort int32
}

// New returns a Gateway. Its Handler answers once Run runs.
func New(options Options) (*Gateway, error) {
	if options.Address == nil {
		options.Address = func(pod *corev1.Pod, port int32) string {
			return net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port)))
		}
	}
	sample, err := options.Template.render("agent-0")
	if err != nil {
		return nil, err
	}
	g := &Gateway{
		options: options, limiter: newLimiter(options.Limits, options.Now),
		nonces:    newNonces(),
		confirmed: newConfirmations(options.Now), draining: make(chan struct{}), farewells: make(chan struct{}, maxFarewells),
		port: sample.podPort(), servicePort: sample.service.Spec.Ports[0].Port,
	}
	g.connections, g.cut = context.WithCancel(context.Background())
	g.uses = newUses(options.Now, g.tellUse)
	g.strangers = newStrangers(maxStrangers, maxStrangersFromSource, func() {
		options.Metrics.limited.WithLabelValues(limitedStrangers).Inc()
	})
	g.watcher = newWatcher(g)
	if g.fleet, err = newFleet(options.Client, options.Namespace, g.watcher.follow); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	options.Metrics.states, options.Metrics.waiting = g.fleet.count, func() int { return len(g.limiter.held.all) }
	return g, nil
}

// Ready returns an error until the fleet is known.
func (g *Gateway) Ready() error { return g.fleet.ready() }

// Run watches the fleet and serves on the listener until ctx ends, then goes on for Options.Drain and ends what stands after
// Options.Grace. It returns nil unless serving fails.
func (g *Gateway) Run(ctx context.Context, listener net.Listener) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, failed := errgroup.WithContext(background)
	group.Go(func() error { g.fleet.run(background); return nil })
	group.Go(func() error { g.watcher.run(background); return nil })
	group.Go(func() error {
		defer stop()
		return g.serve(ctx, failed, listener)
	})
	return group.Wait()
}

// describe adds what only the gateway knows.
func (g *Gateway) describe(user string, s Status) Status {
	s.User = user
	if s.State != lifecycle.Deleted {
		s.Endpoint = fmt.Sprintf("http://%s.%s.svc:%d", s.Deployment, g.options.Namespace, g.servicePort)
	}
	return s
}

// Errors that callers are told.
var (
	errNoAgent = errors.New("the user has no agent and no storage; PUT makes one")
	errForeign = errors.New("the name is taken by something that is not this user's agent")
	errTier    = errors.New("the user type may not change so")
	errLimited = errors.New("too many requests")
	errTime    = errors.New("the agent was not ready in time")
	errLeft    = errors.New("the agent has just gone")
	errAsleep  = errors.New("the agent is not ready; a connection or PUT wakes it")

	errStopping = errors.New("this replica of the gateway stops, and the agent was not ready before; nothing has been delivered: " +
		"send the request again, another replica takes it")
	errScaledToZero = errors.New("the agent's Deployment is scaled to 0 replicas, not by the gateway, which leaves it so: " +
		"no connection wakes the agent before its Deployment is scaled to 1")
)
