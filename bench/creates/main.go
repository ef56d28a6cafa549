// Command creates measures how long a client waits for the create of an agent's Deployment, on a real API server, with
// and without admission in several forms. Each form has a namespace of its own and all are registered at once; the
// creates go round in a random order, so that whatever else the machine does hits all of them alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/dexorder/agent-lifecycle/internal/controlplane"
)

// options are the command line.
type options struct {
	server, floor, stock string
	manifests            string
	rounds               int
	out                  string
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "", "`program` lifecycle-webhook")
	flag.StringVar(&o.floor, "floor", "", "`program` floor")
	flag.StringVar(&o.stock, "stock", "", "`program` stockserver")
	flag.StringVar(&o.manifests, "manifests", "manifests/base", "`directory` of the registrations")
	flag.IntVar(&o.rounds, "rounds", 400, "creates of each form that are measured; a multiple of 50")
	flag.StringVar(&o.out, "out", "", "`file` for the single results, for benchstat")
	flag.Parse()
	if o.server == "" || o.floor == "" || o.stock == "" || o.out == "" || o.rounds < batch || o.rounds%batch != 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, &o, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "creates:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o *options, table io.Writer) (err error) {
	cluster, err := controlplane.Start(ctx, controlplane.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cluster.Stop()) }()
	b, err := newBench(cluster)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.install(ctx, o); err != nil {
		return err
	}
	if err := b.measure(ctx, o.rounds); err != nil {
		return err
	}
	if err := writeLines(o.out, b.variants); err != nil {
		return err
	}
	return writeTable(table, b.variants)
}
