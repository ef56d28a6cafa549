// Command strangers measures what a client without credentials does to creations of agents when it reaches the admission servers:
// silent connections and hostile bodies at a fixed rate, beside a client that creates agents through a real API server at a fixed rate.
// bench/README.md says what is measured and how to read it.
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
	"time"
)

// options are the command line.
type options struct {
	server, manifests string

	// calm and duration are how long is measured without and with the attack.
	calm, duration time.Duration

	// creates is how many agents are created a second, every other one as a dry run.
	creates float64

	load attackLoad

	// memory is the limit of a server's container, in bytes: a server that exceeds it is killed, as the kernel would, and started anew.
	memory int64
	check  bool
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == attackVerb {
		if err := attackMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "strangers:", err)
			os.Exit(1)
		}
		return
	}
	o := options{}
	flag.StringVar(&o.server, "server", "", "`program` lifecycle-webhook")
	flag.StringVar(&o.manifests, "manifests", "manifests/base", "`directory` of the registrations")
	flag.DurationVar(&o.calm, "calm", 20*time.Second, "how long is measured without the attack")
	flag.DurationVar(&o.duration, "duration", time.Minute, "how long is measured with the attack")
	flag.Float64Var(&o.creates, "creates", 10, "agents that are created a `second`")
	flag.IntVar(&o.load.Connections, "connections", 500, "silent connections that stand at once")
	flag.Float64Var(&o.load.Bodies, "attack-bodies", 200, "hostile bodies that are sent a `second`")
	flag.Float64Var(&o.load.Cores, "attack-cores", 0.5, "how much of a core the attacker may use")
	flag.Int64Var(&o.memory, "memory", 256<<20, "memory limit of a server, in `bytes`")
	flag.BoolVar(&o.check, "check", false, "exit with 1 if a creation was refused, or a server did not live through it")
	flag.Parse()
	if problems := o.problems(); problems != nil || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "strangers:", errors.Join(problems...))
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, &o, os.Stdout); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "strangers:", err)
		os.Exit(1) //nolint:gocritic // stop has been called
	}
}

func (o *options) problems() []error {
	var problems []error
	for _, flag := range []struct {
		name string
		ok   bool
		want string
	}{
		{"server", o.server != "", "the path of a program"},
		{"calm", o.calm > 0, "more than 0"},
		{"duration", o.duration > 0, "more than 0"},
		{"creates", o.creates > 0, "more than 0"},
		{"connections", o.load.Connections >= 0, "0 or more"},
		{"attack-bodies", o.load.Bodies >= 0, "0 or more"},
		{"attack-cores", o.load.Cores > 0, "more than 0"},
		{"memory", o.memory > 0, "more than 0"},
	} {
		if !flag.ok {
			problems = append(problems, fmt.Errorf("-%s: accepted is %s", flag.name, flag.want))
		}
	}
	return problems
}

// run measures and writes the table.
func run(ctx context.Context, o *options, out io.Writer) (err error) {
	c, err := startCluster(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()

	var r results
	if _, err := c.create(ctx, o, warmUp, "warm"); err != nil {
		return err
	}
	if r.calm, err = c.create(ctx, o, o.calm, "calm"); err != nil {
		return err
	}
	attacker, err := startAttacker(o.load, c.addresses())
	if err != nil {
		return err
	}
	c.onChange(attacker.target)
	r.attacked, err = c.create(ctx, o, o.duration, "attacked")
	var stopped error
	if r.attack, stopped = attacker.stop(); err != nil || stopped != nil {
		return errors.Join(err, stopped)
	}
	r.restarts, r.peak = c.servers()
	r.write(out, o)
	if o.check {
		return r.check(o)
	}
	return nil
}

// warmUp is created before anything is measured: connections and caches have been used by then.
const warmUp = 3 * time.Second
