package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/provision"
)

const deprovisionHelp = `Nothing is deleted. What runs in the namespace is stopped, such that it can be started again: Deployments and StatefulSets are scaled to
0, CronJobs suspended; Jobs that run come to their end. The namespace is marked as no longer wanted, so that it is not provisioned by
mistake. From then on it is what the reaper calls idle, and goes when it has been so for as long as the policy says (an hour by
default), with all the reaper's guards: its cap, its consecutive passes, its dry run, and what is protected with do-not-reap stays.

With the namespace goes what is in it, its storage too. When that is at the earliest, and whether anything is kept for a while, is said
by the policy in force before anything is asked.

Until it is being deleted, --undo takes it back: the marks go, the reaper's too, and what was stopped starts again. After that, see
kubectl agents restore.

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
	s = s.forPeople()
	if name == "" {
		s.fail("kubectl agents deprovision: say which role or namespace, such as marketing or agent-marketing")
		return exitNotUnderstood
	}
	c, err := d.provisioner(s)
	if err != nil {
		return s.exit(err)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	return s.exit(d.deprovision(ctx, s, c, name))
}

func (d *deprovisionFlags) deprovision(ctx context.Context, s streams, c *provision.Provisioner, name string) error {
	planned, err := d.plan(ctx, s, c, name)
	if err != nil {
		return err
	}
	printStop(s, planned)
	if !d.undo {
		d.printFate(ctx, s, planned)
	}
	switch {
	case planned.Nothing():
		fmt.Fprintln(s.out, "nothing is to be done")
		return nil
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
	if d.undo && len(planned.Workloads) == 0 {
		fmt.Fprintln(s.out, "done; nothing is left there that could start again: see kubectl agents provision")
		return nil
	}
	fmt.Fprintln(s.out, "done")
	return nil
}

// printFate says what the namespace's end takes away, and how it is averted.
func (d *deprovisionFlags) printFate(ctx context.Context, s streams, planned *provision.Stop) {
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	p, err := d.policyInForce(ctx)
	f := fateOf(p, err, planned.Current(), !planned.Stops(), time.Now())
	if len(planned.Keeps) > 0 && f.spared == "" {
		fmt.Fprintf(s.out, "Once nothing keeps it any more it is idle. The reaper deletes it, at the earliest %s later (%s).\n",
			f.after+time.Duration(f.passes)*f.interval, f.times())
	} else {
		fmt.Fprintf(s.out, "Then it is idle. %s\n", f.when("deletes it"))
	}
	fmt.Fprintf(s.out, "With it goes all that is in it: %s.\n", contents(planned))
	if f.kept != "" {
		fmt.Fprintln(s.out, f.kept)
	}
	fmt.Fprintf(s.out, "Until it is being deleted, take it back with: kubectl agents deprovision --undo %s\n", planned.Namespace)
}

// contents names what is lost with a namespace.
func contents(planned *provision.Stop) string {
	var all []string
	for _, w := range planned.Workloads {
		all = append(all, w.Object)
	}
	for _, of := range []struct {
		kind  string
		names []string
	}{{"PersistentVolumeClaim", planned.Claims}, {"Secret", planned.Secrets}} {
		if n := len(of.names) - mostNamed; n > 0 {
			of.names = append(of.names[:mostNamed:mostNamed], fmt.Sprintf("and %d more", n))
		}
		if len(of.names) > 0 {
			all = append(all, plural(of.kind, len(of.names))+" "+strings.Join(of.names, ", "))
		}
	}
	return strings.Join(append(all, "and whatever else"), "; ")
}

// mostNamed bounds how many claims or Secrets are named.
const mostNamed = 20

func (d *deprovisionFlags) plan(ctx context.Context, s streams, c *provision.Provisioner, name string) (*provision.Stop, error) {
	ctx, cancel := context.WithTimeout(ctx, provisionTimeout)
	defer cancel()
	n, err := c.Find(ctx, name, d.org, d.environment)
	if d.undo && errors.Is(err, provision.ErrNoNamespace) {
		return nil, d.reaped(ctx, s, name, err)
	}
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

// reaped adds to the error about a namespace that is not there whether it is kept.
func (d *deprovisionFlags) reaped(ctx context.Context, s streams, name string, err error) error {
	a, unknown := d.archive(s)
	var infos []archive.Info
	if unknown == nil {
		infos, unknown = a.List(ctx)
	}
	namespace := lifecycle.RoleNamespacePrefix + strings.TrimPrefix(name, lifecycle.RoleNamespacePrefix)
	named := map[string]bool{}
	for i := range infos {
		// A role's other namespaces are named after it as well.
		if info := &infos[i]; !named[info.Namespace] && (info.Namespace == namespace || strings.HasPrefix(info.Namespace, namespace+"-")) {
			named[info.Namespace] = true
			err = fmt.Errorf("%w; namespace %s was reaped, and is kept until %s: kubectl agents restore %s", err, info.Namespace,
				info.KeptUntil.Local().Format(time.RFC3339), info.Namespace)
		}
	}
	switch {
	case len(named) > 0:
		return err
	case unknown != nil:
		return fmt.Errorf("%w; whether it was reaped and is kept could not be found out: %w", err, unknown)
	}
	return fmt.Errorf("%w; nothing is kept of one that was reaped either", err)
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
