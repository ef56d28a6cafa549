package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"text/tabwriter"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/provision"
)

const deprovisionHelp = `Nothing is deleted. What runs in the namespace is stopped, such that it can be started again: Deployments and StatefulSets are scaled to
0, CronJobs suspended; Jobs that run come to their end. The namespace is marked as no longer wanted, so that it is not provisioned by
mistake. From then on it is what the reaper calls idle, and goes when it has been so for as long as the policy says (an hour by
default), with all the reaper's guards: its cap, its consecutive passes, its dry run, and what is protected with do-not-reap stays.

Until it is being deleted, --undo takes it back: the marks go, the reaper's too, and what was stopped starts again.

Examples:
  kubectl agents deprovision marketing
  kubectl agents deprovision agent-ceo-staging --dry-run
  kubectl agents deprovision marketing --undo

Exit codes:
  0  done, or done already
  1  refused, or not confirmed
  2  something is not understood, or could not be found out
`

var deprovisionVerb = verb{
	name:     "deprovision",
	summary:  "stop a role agent, and let the reaper have its namespace",
	help:     deprovisionHelp,
	argument: "ROLE|NAMESPACE",
	bind: func(flags *pflag.FlagSet) func(streams) int {
		d := &deprovisionFlags{}
		flags.StringVar(&d.org, "org", "", "the org, where a role has several namespaces")
		flags.StringVar(&d.environment, "env", "", "the environment, where a role has several namespaces")
		flags.BoolVar(&d.undo, "undo", false, "take it back")
		flags.BoolVar(&d.dryRun, "dry-run", false, "say what would be done, and do nothing")
		flags.BoolVarP(&d.yes, "yes", "y", false, "do not ask")
		d.clusterFlags.bind(flags)
		return func(s streams) int { return d.run(s, flags.Arg(0)) }
	},
}

type deprovisionFlags struct {
	clusterFlags
	org, environment  string
	undo, dryRun, yes bool
}

func (d *deprovisionFlags) run(s streams, name string) int {
	if name == "" {
		s.fail("kubectl agents deprovision: say which role or namespace, such as marketing or agent-marketing")
		return exitNotUnderstood
	}
	c, err := d.provisioner(s)
	if err != nil {
		return s.exit(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return s.exit(d.deprovision(ctx, s, c, name))
}

func (d *deprovisionFlags) deprovision(ctx context.Context, s streams, c *provision.Provisioner, name string) error {
	planned, err := d.plan(ctx, c, name)
	if err != nil {
		return err
	}
	printStop(s, planned)
	switch {
	case d.dryRun:
		return nil
	case !d.yes && !s.confirm("Do this?"):
		return errUnconfirmed
	}
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	if err := c.Do(ctx, planned); err != nil {
		return err
	}
	switch {
	case !d.undo:
		fmt.Fprintf(s.out, "done; until the reaper deletes it, take it back with: kubectl agents deprovision --undo %s\n", planned.Namespace)
	case len(planned.Workloads) == 0:
		fmt.Fprintln(s.out, "done; nothing is left there that could start again: see kubectl agents provision")
	default:
		fmt.Fprintln(s.out, "done")
	}
	return nil
}

func (d *deprovisionFlags) plan(ctx context.Context, c *provision.Provisioner, name string) (*provision.Stop, error) {
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	n, err := c.Find(ctx, name, d.org, d.environment)
	if err != nil {
		return nil, err
	}
	if d.undo {
		return c.PlanUndo(ctx, n)
	}
	config, err := d.config()
	if err != nil {
		return nil, err
	}
	return c.PlanStop(ctx, n, userName(ctx, config))
}

func printStop(s streams, planned *provision.Stop) {
	table := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "Namespace %s\t%s\n", planned.Namespace, planned.Marks)
	for _, w := range planned.Workloads {
		fmt.Fprintf(table, "%s\t%s\n", w.Object, w.Outcome)
	}
	_ = table.Flush()
	for _, why := range planned.Keeps {
		fmt.Fprintf(s.out, "The reaper keeps the namespace all the same: %s\n", why)
	}
}
