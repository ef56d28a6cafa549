package webhook

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/dexorder/agent-lifecycle/policy"
)

// Confirmer is the Announcer that believes the cluster and not the request. An accepted self-delete is announced once its
// Deployment is terminating or gone, and the breaker gets its token back if that does not come about. So a review that
// did not come from the API server, and one that something else refused after us, leave no Event and count for nothing.
//
// What waits to be confirmed is in memory: where the server dies within that time, the token stays taken, and the API
// server's audit log alone has the proof.
type Confirmer struct {
	options ConfirmerOptions

	mu      sync.Mutex
	pending map[types.UID]acceptedDelete
	added   chan struct{}
}

// ConfirmerOptions are what a Confirmer works with. All are required.
type ConfirmerOptions struct {
	// Deleted says whether the Deployment of that UID is terminating or gone. With live it is asked of the API server.
	Deleted func(ctx context.Context, namespace, name string, uid types.UID, live bool) (bool, error)

	// GiveBack takes back what the breaker has counted of a Deployment, unless it was asked for again less than
	// settled ago.
	GiveBack func(ctx context.Context, uid string, settled time.Duration) error

	// Announcer is told of what is confirmed.
	Announcer Announcer

	Metrics *Metrics
	Logger  *slog.Logger
	Now     func() time.Time
}

// acceptedDelete is a self-delete that was accepted and is not confirmed.
type acceptedDelete struct {
	namespace, policyHash string
	proof                 *policy.SelfDelete
	until                 time.Time
}

const (
	// confirmWithin is how long after the answer a deletion may begin. The API server stores it when all webhooks have
	// answered, none of which may take longer than 30 s; 10 s are its default.
	confirmWithin = 35 * time.Second

	// confirmEvery is how often memory is looked at as long as anything is pending.
	confirmEvery = 250 * time.Millisecond

	// confirmLast bounds how long a server that stops still looks.
	confirmLast = time.Second

	// maxPending bounds what is pending. The breaker lets go far less within confirmWithin.
	maxPending = 1024
)

// NewConfirmer returns a Confirmer that confirms once Run is called.
func NewConfirmer(options ConfirmerOptions) *Confirmer {
	return &Confirmer{options: options, pending: map[types.UID]acceptedDelete{}, added: make(chan struct{}, 1)}
}

// SelfDelete implements Announcer. One that is asked for again gets its time anew.
func (c *Confirmer) SelfDelete(ctx context.Context, namespace string, proof *policy.SelfDelete, policyHash string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, known := c.pending[proof.DeploymentUID]; !known && len(c.pending) >= maxPending {
		c.options.Metrics.eventsLost.Inc()
		c.options.Logger.WarnContext(ctx, "Too many self-deletes wait to be confirmed; this one is not announced",
			"namespace", namespace, "deployment", proof.Deployment)
		return
	}
	c.pending[proof.DeploymentUID] = acceptedDelete{namespace, policyHash, proof, c.options.Now().Add(confirmWithin)}
	select {
	case c.added <- struct{}{}:
	default:
	}
}

// Run confirms until ctx ends, and for a moment longer what was accepted last.
func (c *Confirmer) Run(ctx context.Context) error {
	for c.waitForWork(ctx) {
		c.confirm(ctx)
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), confirmLast)
	defer cancel()
	for c.waitForWork(last) {
		c.confirm(last)
		if len(c.snapshot()) == 0 {
			return nil
		}
	}
	return nil
}

// waitForWork returns false when ctx ends, or has ended with nothing pending.
func (c *Confirmer) waitForWork(ctx context.Context) bool {
	var tick <-chan time.Time
	if len(c.snapshot()) > 0 {
		tick = time.After(confirmEvery)
	} else if _, bounded := ctx.Deadline(); bounded {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-c.added:
		return true
	case <-tick:
		return true
	}
}

func (c *Confirmer) snapshot() []acceptedDelete {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]acceptedDelete, 0, len(c.pending))
	for _, d := range c.pending {
		all = append(all, d)
	}
	return all
}

func (c *Confirmer) confirm(ctx context.Context) {
	for _, d := range c.snapshot() {
		expired := !c.options.Now().Before(d.until)
		switch deleted, err := c.deleted(ctx, d, expired); {
		case err != nil:
			if expired {
				c.drop(d) // What cannot be read counts as deleted: the token stays taken.
				c.options.Metrics.eventsLost.Inc()
				c.options.Logger.WarnContext(ctx, "Whether an agent was deleted cannot be read; it is not announced",
					"namespace", d.namespace, "deployment", d.proof.Deployment, "error", err)
			}
		case deleted:
			c.drop(d)
			c.options.Announcer.SelfDelete(ctx, d.namespace, d.proof, d.policyHash)
		case expired && c.drop(d):
			c.giveBack(ctx, d)
		}
	}
}

// deleted asks memory first and believes the API server alone.
func (c *Confirmer) deleted(ctx context.Context, d acceptedDelete, expired bool) (bool, error) {
	name, uid := d.proof.Deployment, d.proof.DeploymentUID
	if !expired {
		if deleted, err := c.options.Deleted(ctx, d.namespace, name, uid, false); err != nil || !deleted {
			return false, err
		}
	}
	return c.options.Deleted(ctx, d.namespace, name, uid, true)
}

// drop forgets a self-delete. It is false if it was asked for again meanwhile and is pending still.
func (c *Confirmer) drop(d acceptedDelete) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := c.pending[d.proof.DeploymentUID]; now.until.After(d.until) {
		return false
	}
	delete(c.pending, d.proof.DeploymentUID)
	return true
}

func (c *Confirmer) giveBack(ctx context.Context, d acceptedDelete) {
	log := c.options.Logger.With("namespace", d.namespace, "deployment", d.proof.Deployment)
	if err := c.options.GiveBack(ctx, string(d.proof.DeploymentUID), confirmWithin); err != nil {
		log.WarnContext(ctx, "The circuit breaker keeps the count of an agent that was not deleted", "error", err)
		return
	}
	log.WarnContext(ctx, "An accepted self-delete did not come about: the request was refused by something else, or did not come "+
		"from the API server; it counts for nothing")
}
