// Command lives measures how agents go on a real cluster: from the moment at which the agent exits with 42 until nothing
// of it is left. The agents are anonymous users', with a claim of their own, so that everything there is has to go.
//
// The cluster is one on which `make e2e` has installed the system and loaded the test agent. All clocks must be the
// same: a kind cluster's on this machine are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// options are the command line.
type options struct {
	kubeconfig string
	image      string
	lives      int
	together   int
	pause      time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("E2E_KUBECONFIG"), "`file` that says where the cluster is")
	flag.StringVar(&o.image, "image", "ghcr.io/dexorder/e2e-agent:e2e", "`image` of the test agent")
	flag.IntVar(&o.lives, "lives", 40, "lives that are measured; the breaker's burst is 60")
	flag.IntVar(&o.together, "together", 10, "agents that run at the same time")
	flag.DurationVar(&o.pause, "pause", 2*time.Second, "time between two exits")
	flag.Parse()
	if o.kubeconfig == "" || o.lives < 1 || o.together < 1 || o.pause < 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, &o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "lives:", err)
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
	var records []record
	for len(records) < o.lives {
		batch, err := generation(ctx, w, o, len(records))
		if err != nil { // what was measured until then counts
			return errors.Join(err, writeTable(table, records))
		}
		records = append(records, batch...)
		fmt.Fprintf(os.Stderr, "lives: %d of %d\n", len(records), o.lives)
	}
	return writeTable(table, records)
}

// generation makes agents, waits until all are old enough, and ends them one after another.
func generation(ctx context.Context, w *watcher, o *options, from int) ([]record, error) {
	n := min(o.together, o.lives-from)
	records, errs := make([]record, n), make([]error, n)
	var born sync.WaitGroup
	born.Add(n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			a := &agent{client: w.client, name: fmt.Sprintf("bench-life-%02d", from+i)}
			defer a.remove()
			err := a.bear(ctx, o.image)
			born.Done()
			if err == nil {
				born.Wait() // starts disturb what is measured
				err = sleep(ctx, time.Duration(i)*o.pause)
			}
			if err == nil {
				records[i], err = a.end(ctx, w)
			}
			errs[i] = err
		})
	}
	all.Wait()
	return records, errors.Join(errs...)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
