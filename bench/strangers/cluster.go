package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/bench"
	"github.com/dexorder/agent-lifecycle/internal/controlplane"
	"github.com/dexorder/agent-lifecycle/internal/installation"
)

// serverCount is how many servers an installation has by default.
const serverCount = 2

// cluster is a control plane with the real manifests and servers, which are watched as a kubelet would.
type cluster struct {
	plane        *controlplane.ControlPlane
	installation *installation.Installation
	client       kubernetes.Interface
	dir          string
	memory       int64

	cancel context.CancelFunc
	done   sync.WaitGroup

	installing sync.Mutex // for the installation, which takes seconds to start a server

	mu       sync.Mutex // for what follows
	restarts int
	peak     int64
	changed  func([]string)
	err      error // of a server that could not be started again
}

func startCluster(ctx context.Context, o *options) (_ *cluster, err error) {
	// As manifests/base/deployment.yaml gives it to the servers.
	if err := os.Setenv("GOMEMLIMIT", strconv.FormatInt(o.memory, 10)); err != nil {
		return nil, err
	}
	c := &cluster{memory: o.memory, changed: func([]string) {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if c.dir, err = os.MkdirTemp("", "agent-lifecycle-strangers-"); err != nil {
		return nil, err
	}
	if c.plane, err = controlplane.Start(ctx, controlplane.Options{}); err != nil {
		return nil, err
	}
	config := rest.CopyConfig(c.plane.Config)
	config.WarningHandler = rest.NoWarnings{}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	policy := filepath.Join(c.dir, "policy.yaml")
	if err := os.WriteFile(policy, bench.Policy(installation.AgentsNamespace), 0o600); err != nil {
		return nil, err
	}
	c.installation, err = installation.New(ctx, c.plane, installation.Options{
		Program: o.server, Manifests: o.manifests, Policy: policy, Flags: []string{"--drain-delay=0s", "--reaper=false"},
	})
	if err != nil {
		return nil, err
	}
	watching, cancel := context.WithCancel(ctx)
	c.cancel = cancel
	for range serverCount {
		s, err := c.installation.AddServer(ctx)
		if err != nil {
			return nil, err
		}
		c.done.Go(func() { c.keep(watching, s) })
	}
	return c, nil
}

// keep does for a server what kernel and kubelet do: it is killed when it exceeds its memory, and started again when it has ended.
func (c *cluster) keep(ctx context.Context, s *installation.Server) {
	for {
		c.watch(ctx, s.PID())
		if ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.restarts++
		c.mu.Unlock()
		c.remove(s)
		c.target()
		next, err := c.restart(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			c.mu.Lock()
			c.err = errors.Join(c.err, err)
			c.mu.Unlock()
			return
		}
		s = next
		c.target()
	}
}

func (c *cluster) remove(s *installation.Server) {
	c.installing.Lock()
	defer c.installing.Unlock()
	_ = c.installation.RemoveServer(s) // it says how the server ended
}

func (c *cluster) restart(ctx context.Context) (*installation.Server, error) {
	c.installing.Lock()
	defer c.installing.Unlock()
	return c.installation.AddServer(ctx)
}

// watch returns when the process has ended.
func (c *cluster) watch(ctx context.Context, pid int) {
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	for syscall.Kill(pid, 0) == nil {
		resident, err := residentMemory(pid)
		if err == nil {
			c.mu.Lock()
			c.peak = max(c.peak, resident)
			c.mu.Unlock()
			if resident > c.memory {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
	}
}

// residentMemory is what a process has in memory now, in bytes.
func residentMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range bytes.Lines(status) {
		value, found := bytes.CutPrefix(line, []byte("VmRSS:"))
		if !found {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(value), []byte("kB")))), 10, 64)
		return kib << 10, err
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// addresses are those of the servers themselves: what is between a Service and them is the kernel's work, and not this process's.
func (c *cluster) addresses() []string {
	c.installing.Lock()
	defer c.installing.Unlock()
	var addresses []string
	for _, s := range c.installation.Servers() {
		addresses = append(addresses, s.Listen)
	}
	return addresses
}

func (c *cluster) target() {
	addresses := c.addresses()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed(addresses)
}

// onChange has the addresses told when a server has gone or come.
func (c *cluster) onChange(changed func([]string)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = changed
}

// servers says how often a server ended, and the most memory that one had.
func (c *cluster) servers() (restarts int, peak int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.restarts, c.peak
}

func (c *cluster) close() error {
	if c.cancel != nil {
		c.cancel()
		c.done.Wait()
	}
	errs := []error{c.err}
	if c.installation != nil {
		errs = append(errs, c.installation.Close())
	}
	if c.plane != nil {
		errs = append(errs, c.plane.Stop())
	}
	return errors.Join(append(errs, os.RemoveAll(c.dir))...)
}
