// Command reaper measures the reaper on a real API server: what looking at a fleet of namespaces costs, beside a shell loop that asks
// kubectl for the same; what a pass costs in which nothing has changed; and how fast namespaces that are to go are gone, and what
// somebody else notices of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// options are the command line.
type options struct {
	program, shell    string
	manifests, policy string

	sizes  []int
	sample int
	once   int

	drain       int
	parallelism []int
	quiet       time.Duration
}

func main() {
	var o options
	var sizes, parallelism string
	flag.StringVar(&o.program, "program", "", "`program` lifecycle-webhook")
	flag.StringVar(&o.shell, "shell", "bench/reaper/shell-loop.sh", "`program` that is the shell loop")
	flag.StringVar(&o.manifests, "manifests", "manifests/base", "`directory` of what is installed for the drain")
	flag.StringVar(&o.policy, "policy", "manifests/base/policy.yaml", "policy `file` to begin with")
	flag.StringVar(&sizes, "sizes", "100,1000", "how many namespaces the fleets have, ascending; empty: none is looked at")
	flag.IntVar(&o.sample, "sample", 100, "how many namespaces the shell loop looks at; more are extrapolated")
	flag.IntVar(&o.once, "once", 3, "how often a process looks that reads everything first; the median counts")
	flag.IntVar(&o.drain, "drain", 500, "how many namespaces there are to go; 0: none is drained")
	flag.StringVar(&parallelism, "parallelism", "4", "the policy's reaper.parallelism of each drain, one control plane after the other")
	flag.DurationVar(&o.quiet, "quiet", 45*time.Second, "how long the bystander is measured before and after a drain")
	flag.Parse()
	var errs [2]error
	o.sizes, errs[0] = numbers(sizes)
	o.parallelism, errs[1] = numbers(parallelism)
	if err := errors.Join(errs[:]...); err != nil || o.program == "" || o.once < 1 || !slices.IsSorted(o.sizes) {
		fmt.Fprintln(os.Stderr, "reaper:", err)
		flag.Usage()
		os.Exit(2)
	}
	log.SetLogger(logr.Discard())
	ctx, _ := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	if err := run(ctx, &o); err != nil {
		fmt.Fprintln(os.Stderr, "reaper:", err)
		os.Exit(1)
	}
}

func numbers(list string) ([]int, error) {
	var all []int
	for field := range strings.FieldsFuncSeq(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q: want whole numbers above 0, separated by commas", field)
		}
		all = append(all, n)
	}
	return all, nil
}

func run(ctx context.Context, o *options) (err error) {
	dir, err := os.MkdirTemp("", "agent-lifecycle-bench-reaper-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil {
			err = os.RemoveAll(dir)
		} else {
			fmt.Fprintln(os.Stderr, "logs are in", dir)
		}
	}()
	var looks []*look
	if len(o.sizes) > 0 {
		if looks, err = lookAtFleets(ctx, o, dir); err != nil {
			return fmt.Errorf("fleets: %w", err)
		}
		if err := writeLooks(os.Stdout, looks); err != nil {
			return err
		}
	}
	var drains []*drained
	for _, parallelism := range o.parallelism {
		if o.drain == 0 {
			break
		}
		d, err := drain(ctx, o, filepath.Join(dir, "drain-"+strconv.Itoa(parallelism)), parallelism)
		if err != nil {
			return fmt.Errorf("drain with parallelism %d: %w", parallelism, err)
		}
		drains = append(drains, d)
		if err := writeDrains(os.Stdout, drains); err != nil {
			return err
		}
	}
	return writeGoals(os.Stdout, looks, drains)
}

// progress says on the terminal how far things are; tables go to standard output.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
