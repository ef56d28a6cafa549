package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/dexorder/agent-lifecycle/bench/timing"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

const systemNamespace = installation.SystemNamespace

// look is what it costs to look at a fleet of some size.
type look struct {
	namespaces int

	// sampled is how many namespaces the shell loop looked at; its use is extrapolated from them.
	sampled     int
	shell       timing.Used
	shellCalls  float64
	shellServer float64     // CPU of kube-apiserver, in seconds
	once        timing.Used // the median by time
	onceCalls   *calls
	onceServer  float64
	first       time.Duration
	firstCalls  *calls
	written     time.Duration
	passes      []pass // as the policy is
	bare        []pass // without looking for leftovers
	resident    int64
	peak        int64
}

// pass is one in which nothing has changed.
type pass struct {
	took, leftovers time.Duration
	calls           *calls
}

// passesEach is how many passes are measured of each kind.
const passesEach = 3

// lastInPass is the reaper whose end is that of a pass.
const lastInPass = `reaper="drift"`

// betweenPasses is the policy's reaper.interval.
const betweenPasses = 10 * time.Second

// fleetPolicy lets the reaper do all that it does, and nothing is old enough to go.
func fleetPolicy(leftovers bool) func(map[string]any) {
	return func(reaper map[string]any) {
		reaper["interval"] = betweenPasses.String()
		namespaces := reaper["namespaces"].(map[string]any)
		namespaces["orgs"], namespaces["idleAfter"] = []any{org}, "24h"
		if !leftovers {
			reaper["leftovers"] = map[string]any{"mode": "Off"}
		}
	}
}

// lookAtFleets fills one control plane further and further.
func lookAtFleets(ctx context.Context, o *options, dir string) (_ []*look, err error) {
	progress("fleets: starting a control plane")
	c, err := startCluster(ctx, dir+"/fleets")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	for _, name := range []string{benchNamespace, systemNamespace} {
		if err := c.namespace(ctx, name); err != nil {
			return nil, err
		}
	}
	kubeconfigs := map[string]string{}
	for _, name := range []string{"shell", "reaper"} {
		config, err := c.account(ctx, benchNamespace, name, true)
		if err != nil {
			return nil, err
		}
		if kubeconfigs[name], err = c.kubeconfig(name, config); err != nil {
			return nil, err
		}
	}
	var looks []*look
	from := 0
	for _, size := range o.sizes {
		if err := c.fillFleet(ctx, from, size); err != nil {
			return nil, err
		}
		from = size
		l := &look{namespaces: size}
		looks = append(looks, l)
		if err := c.shellLooks(ctx, o, l, kubeconfigs["shell"]); err != nil {
			return nil, err
		}
		if err := c.onceLooks(ctx, o, l, kubeconfigs["reaper"]); err != nil {
			return nil, err
		}
		if err := c.loopLooks(ctx, o, l, kubeconfigs["reaper"]); err != nil {
			return nil, err
		}
	}
	return looks, nil
}

// shellLooks runs the shell loop, over a sample where there are more namespaces than that.
func (c *cluster) shellLooks(ctx context.Context, o *options, l *look, kubeconfig string) error {
	env := []string{"KUBECONFIG=" + kubeconfig, "KUBECTL=" + c.Kubectl()}
	run := func(sample int) (timing.Used, int, float64, error) {
		log := c.audit()
		if _, err := log.since(accounts.shell); err != nil {
			return timing.Used{}, 0, 0, err
		}
		before, err := c.cpu(ctx)
		if err != nil {
			return timing.Used{}, 0, 0, err
		}
		u, err := execute(ctx, c.path(fmt.Sprintf("shell-%d-%d", l.namespaces, sample)), env, o.shell, org, strconv.Itoa(sample))
		if err != nil {
			return u, 0, 0, err
		}
		after, err := c.cpu(ctx)
		if err != nil {
			return u, 0, 0, err
		}
		asked, err := log.since(accounts.shell)
		if err != nil {
			return u, 0, 0, err
		}
		return u, asked.sum(), after - before, nil
	}
	if _, _, _, err := run(1); err != nil { // kubectl caches what the API server serves
		return err
	}
	l.sampled = min(l.namespaces, o.sample)
	progress("%d namespaces: the shell loop over %d of them", l.namespaces, l.sampled)
	u, asked, server, err := run(l.sampled)
	if err != nil {
		return err
	}
	l.shell, l.shellCalls, l.shellServer = u, float64(asked), server
	if l.sampled == l.namespaces {
		return nil
	}
	list, listAsked, listServer, err := run(0)
	if err != nil {
		return err
	}
	// The list is there once, the rest as often as there are namespaces.
	times := float64(l.namespaces) / float64(l.sampled)
	l.shell.Wall = list.Wall + time.Duration(times*float64(u.Wall-list.Wall))
	l.shell.CPU = list.CPU + time.Duration(times*float64(u.CPU-list.CPU))
	l.shell.Peak = max(u.Peak, list.Peak)
	l.shellCalls = float64(listAsked) + times*float64(asked-listAsked)
	l.shellServer = listServer + times*(server-listServer)
	return nil
}

// onceLooks makes some passes, each by a process that has to read everything first.
func (c *cluster) onceLooks(ctx context.Context, o *options, l *look, kubeconfig string) error {
	policy := c.path("once.yaml")
	if err := writePolicy(o.policy, policy, fleetPolicy(true)); err != nil {
		return err
	}
	type one struct {
		timing.Used
		calls  *calls
		server float64
	}
	var runs []one
	for i := range o.once {
		progress("%d namespaces: reap --once --dry-run, %d of %d", l.namespaces, i+1, o.once)
		log := c.audit()
		if _, err := log.since(accounts.reaper); err != nil {
			return err
		}
		before, err := c.cpu(ctx)
		if err != nil {
			return err
		}
		u, err := execute(ctx, c.path(fmt.Sprintf("once-%d-%d", l.namespaces, i)), nil, o.program,
			"reap", "--once", "--dry-run", "-o", "json", "--kubeconfig", kubeconfig, "--policy", policy, "--namespace", systemNamespace)
		if err != nil {
			return err
		}
		after, err := c.cpu(ctx)
		if err != nil {
			return err
		}
		asked, err := log.since(accounts.reaper)
		if err != nil {
			return err
		}
		runs = append(runs, one{u, asked, after - before})
	}
	slices.SortFunc(runs, func(a, b one) int { return int(a.Wall - b.Wall) })
	median := runs[len(runs)/2]
	l.once, l.onceCalls, l.onceServer = median.Used, median.calls, median.server
	return nil
}

// loopLooks lets the reaper run until it has written what it has to, and then measures passes in which nothing has changed.
func (c *cluster) loopLooks(ctx context.Context, o *options, l *look, kubeconfig string) (err error) {
	policy := c.path("loop.yaml")
	if err := writePolicy(o.policy, policy, fleetPolicy(true)); err != nil {
		return err
	}
	health, err := freeAddress()
	if err != nil {
		return err
	}
	log := c.audit()
	if _, err := log.since(accounts.reaper); err != nil {
		return err
	}
	began := time.Now()
	r, err := startLoop(o, c.path(fmt.Sprintf("loop-%d", l.namespaces)), kubeconfig, policy, health)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	progress("%d namespaces: the loop's first pass", l.namespaces)
	if _, err := r.awaitPass(ctx, 1); err != nil {
		return err
	}
	l.first = time.Since(began)
	if l.firstCalls, err = log.since(accounts.reaper); err != nil {
		return err
	}
	if l.written, err = awaitQuiet(ctx, log, accounts.reaper); err != nil {
		return err
	}
	progress("%d namespaces: %d passes in which nothing has changed", l.namespaces, passesEach)
	if l.passes, err = r.measurePasses(ctx, log); err != nil {
		return err
	}
	if err := writePolicy(o.policy, policy, fleetPolicy(false)); err != nil {
		return err
	}
	progress("%d namespaces: %d such passes without leftovers", l.namespaces, passesEach)
	time.Sleep(betweenPasses) // the reaper follows the file
	if l.bare, err = r.measurePasses(ctx, log); err != nil {
		return err
	}
	l.resident, l.peak, err = r.memory()
	return err
}

// awaitPass waits until so many passes are over, and returns the metrics of then.
func (l *loop) awaitPass(ctx context.Context, n float64) (samples, error) {
	for {
		m, err := l.metrics(ctx)
		if err != nil {
			return nil, err
		}
		if m.sum("agent_lifecycle_reaper_passes_total", lastInPass) >= n {
			return m, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// awaitQuiet waits until nothing is written any more, and returns how long it took.
func awaitQuiet(ctx context.Context, log *auditLog, account string) (time.Duration, error) {
	began, last := time.Now(), time.Now()
	for time.Since(last) < 5*time.Second {
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(500 * time.Millisecond):
		}
		asked, err := log.since(account)
		if err != nil {
			return 0, err
		}
		if asked.writes() > 0 {
			last = time.Now()
		}
	}
	return last.Sub(began), nil
}

func (l *loop) measurePasses(ctx context.Context, log *auditLog) ([]pass, error) {
	const passes, duration = "agent_lifecycle_reaper_passes_total", "agent_lifecycle_reaper_pass_duration_seconds_sum"
	m, err := l.awaitPass(ctx, 0)
	if err != nil {
		return nil, err
	}
	// Begin right after a pass.
	if m, err = l.awaitPass(ctx, m.sum(passes, lastInPass)+1); err != nil {
		return nil, err
	}
	if _, err := log.since(accounts.reaper); err != nil {
		return nil, err
	}
	var all []pass
	for range passesEach {
		before := m
		if m, err = l.awaitPass(ctx, m.sum(passes, lastInPass)+1); err != nil {
			return nil, err
		}
		var p pass
		if p.calls, err = log.since(accounts.reaper); err != nil {
			return nil, err
		}
		seconds := func(labels ...string) time.Duration {
			return time.Duration((m.sum(duration, labels...) - before.sum(duration, labels...)) * float64(time.Second))
		}
		p.took, p.leftovers = seconds(), seconds(`reaper="leftovers"`)
		all = append(all, p)
	}
	return all, nil
}

func freeAddress() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer listener.Close()
	return listener.Addr().String(), nil
}
