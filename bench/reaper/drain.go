package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// drained is how namespaces went.
type drained struct {
	namespaces, parallelism int

	// took is from the reaper's start to the answer to its last deletion.
	took  time.Duration
	calls *calls
	cpu   float64 // of kube-apiserver, in seconds, while the drain lasted

	// What the bystander waited for while all was quiet, during the drain, and after it, when kube-controller-manager alone goes on
	// with what is in the namespaces.
	before, during, after waited

	resident, peak int64
}

// drainLimit is when a drain is given up.
const drainLimit = 30 * time.Minute

// drain has a reaper with the rights of the manifests take apart what is to go.
func drain(ctx context.Context, o *options, dir string, parallelism int) (_ *drained, err error) {
	progress("drain: starting a control plane")
	c, err := startCluster(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if err := c.fillMarked(ctx, o.drain); err != nil {
		return nil, err
	}
	filled := time.Now()
	// The claims are of no class, and the controller that would bind them would say so all the time.
	if err := c.StartControllerManager(ctx, "--controllers=*,-persistentvolume-binder-controller"); err != nil {
		return nil, err
	}
	if err := c.awaitControllers(ctx); err != nil {
		return nil, err
	}
	in, err := installation.New(ctx, c.ControlPlane, installation.Options{
		Program: o.program, Manifests: o.manifests, Policy: o.policy, Flags: []string{"--reaper=false", "--drain-delay", "100ms"},
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	if _, err := in.AddServer(ctx); err != nil {
		return nil, err
	}
	config, err := c.account(ctx, systemNamespace, installation.ServerAccount, false)
	if err != nil {
		return nil, err
	}
	kubeconfig, err := c.kubeconfig("installed", config)
	if err != nil {
		return nil, err
	}
	policy := c.path("policy.yaml")
	if err := writePolicy(o.policy, policy, func(reaper map[string]any) {
		reaper["parallelism"], reaper["cap"] = parallelism, map[string]any{"count": 100 * o.drain, "percent": 100}
		namespaces := reaper["namespaces"].(map[string]any)
		namespaces["orgs"], namespaces["idleAfter"] = []any{org}, "1m"
	}); err != nil {
		return nil, err
	}
	b, err := c.newBystander(ctx)
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Until(filled.Add(70 * time.Second))) // until all are old enough
	d := &drained{namespaces: o.drain, parallelism: parallelism}
	return d, c.measureDrain(ctx, o, d, b, kubeconfig, policy)
}

func (c *cluster) measureDrain(ctx context.Context, o *options, d *drained, b *bystander, kubeconfig, policy string) (err error) {
	asking, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		b.run(asking)
		close(ended)
	}()
	defer func() {
		stop()
		<-ended
	}()
	time.Sleep(3 * time.Second) // connections are made
	if _, err := b.take(); err != nil {
		return err
	}
	progress("drain: quiet for %s", o.quiet)
	time.Sleep(o.quiet)
	if d.before, err = b.take(); err != nil {
		return err
	}
	health, err := freeAddress()
	if err != nil {
		return err
	}
	log := c.audit()
	if _, err := log.since(accounts.installed); err != nil {
		return err
	}
	cpu, err := c.cpu(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	r, err := startLoop(o, c.path("drain"), kubeconfig, policy, health)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	if err := c.awaitDrained(ctx, d, log, r, began); err != nil {
		return err
	}
	if d.during, err = b.take(); err != nil {
		return err
	}
	after, err := c.cpu(ctx)
	if err != nil {
		return err
	}
	d.cpu = after - cpu
	if d.resident, d.peak, err = r.memory(); err != nil {
		return err
	}
	progress("drain: done in %s; kube-controller-manager goes on for %s", d.took.Round(time.Second), o.quiet)
	time.Sleep(o.quiet)
	d.after, err = b.take()
	return err
}

// awaitDrained waits until the last namespace's deletion has been accepted.
func (c *cluster) awaitDrained(ctx context.Context, d *drained, log *auditLog, r *loop, began time.Time) error {
	d.calls = &calls{verbs: map[string]int{}}
	said := time.Now()
	for d.calls.deletedNamespaces < d.namespaces {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-r.exited:
			return fmt.Errorf("the reaper ended: %w; see %s", r.err, r.log.Name())
		case <-time.After(time.Second):
		}
		more, err := log.since(accounts.installed)
		if err != nil {
			return err
		}
		d.calls.addAll(more)
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			progress("drain: %d of %d after %s", d.calls.deletedNamespaces, d.namespaces, time.Since(began).Round(time.Second))
		}
		if time.Since(began) > drainLimit {
			return fmt.Errorf("%d of %d namespaces were deleted within %s", d.calls.deletedNamespaces, d.namespaces, drainLimit)
		}
	}
	d.took = d.calls.lastDeletion.Sub(began)
	return nil
}

// awaitControllers waits until kube-controller-manager writes next to nothing.
func (c *cluster) awaitControllers(ctx context.Context) error {
	progress("drain: waiting for the controllers to come to rest")
	began := time.Now()
	writes := func() (float64, error) {
		m, err := c.metrics(ctx)
		n := 0.0
		for i := range m {
			if m[i].name != "apiserver_request_total" || strings.Contains(m[i].labels, `resource="leases"`) {
				continue
			}
			for _, verb := range []string{"POST", "PUT", "PATCH", "APPLY", "DELETE"} {
				if strings.Contains(m[i].labels, `verb="`+verb+`"`) {
					n += m[i].value
				}
			}
		}
		return n, err
	}
	const stretch = 5 * time.Second
	before, err := writes()
	for err == nil {
		time.Sleep(stretch)
		var now float64
		if now, err = writes(); err != nil {
			break
		}
		if now-before < 10 {
			progress("drain: they did, in %s", time.Since(began).Round(time.Second))
			return nil
		}
		before = now
		if time.Since(began) > drainLimit {
			return fmt.Errorf("kube-controller-manager still writes after %s", drainLimit)
		}
	}
	return err
}
