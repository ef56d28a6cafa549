// Command wake measures how long users wait for the gateway on a real cluster: for an agent that has gone and comes back with its
// storage, and for one that runs, beside the same request to its Pod without a gateway.
//
// The cluster is one on which `make e2e` has installed the system and loaded the test agent. Who asks is a Pod in it, which takes the
// times of its requests; what happens between is when watches bring it to this program. All clocks must be the same: a kind cluster's
// on this machine are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// options are the command line.
type options struct {
	kubeconfig string
	image      string
	wakes      int
	users      int
	requests   int
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("E2E_KUBECONFIG"), "`file` that says where the cluster is")
	flag.StringVar(&o.image, "image", "ghcr.io/dexorder/e2e-agent:e2e", "`image` of the test agent, which is the caller, too")
	flag.IntVar(&o.wakes, "wakes", 48, "wakes that are measured, one after another")
	flag.IntVar(&o.users, "users", 8, "users whose agents are woken in turn")
	flag.IntVar(&o.requests, "requests", 1000, "requests of each kind to an agent that runs")
	flag.Parse()
	if o.kubeconfig == "" || o.wakes < 1 || o.users < 1 || o.requests < 1 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, &o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "wake:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options, table io.Writer) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // the client's own patience is not what is measured
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := watchAgents(ctx, client)
	if err != nil {
		return err
	}
	c, err := startCaller(ctx, client, o.image)
	defer c.remove()
	if err != nil {
		return err
	}
	users := make([]*user, o.users)
	for i := range users {
		users[i] = newUser(c, w, i)
	}
	defer func() {
		for _, u := range users {
			u.remove()
		}
	}()
	for _, u := range users {
		if err := u.make(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(table, "load average at the start %s\n", loadAverage())
	requests, err := measureRunning(ctx, users[0], o.requests)
	if err != nil {
		return err
	}
	wakes, err := measureWakes(ctx, users, o.wakes)
	if err != nil {
		return err
	}
	fmt.Fprintf(table, "load average at the end   %s\n\n", loadAverage())
	return errors.Join(writeWakes(table, wakes), writeRequests(table, requests))
}

// measureWakes lets all agents go at once, and wakes one after another, until there are enough.
func measureWakes(ctx context.Context, users []*user, n int) ([]wake, error) {
	var all []wake
	for len(all) < n {
		errs := make([]error, len(users))
		var going sync.WaitGroup
		for i, u := range users {
			going.Go(func() { errs[i] = u.leave(ctx) })
		}
		going.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		for _, u := range users[:min(len(users), n-len(all))] {
			w, err := u.wake(ctx)
			if err != nil {
				return nil, err
			}
			all = append(all, w)
		}
		fmt.Fprintf(os.Stderr, "wake: %d of %d\n", len(all), n)
	}
	return all, nil
}

// ways are how an agent that runs is reached.
var ways = []struct {
	name  string
	path  func(u *user) string
	fresh bool
}{
	{"through the gateway", func(u *user) string { return u.url("/connect/healthz") }, false},
	{"direct, a connection for each", func(u *user) string { return u.direct() }, true},
	{"direct, one connection", func(u *user) string { return u.direct() }, false},
}

// measureRunning asks one agent in all ways by turns, so that whatever else happens hits all alike.
func measureRunning(ctx context.Context, u *user, n int) (map[string][]measured, error) {
	const turn = 50
	took := map[string][]measured{}
	for done := 0; done < n; done += turn {
		for _, way := range ways {
			batch, err := u.caller.measure(ctx, way.path(u), min(turn, n-done), way.fresh)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", way.name, err)
			}
			took[way.name] = append(took[way.name], batch...)
		}
	}
	return took, nil
}

func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}
