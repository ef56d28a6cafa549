package main

import (
	"cmp"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy"
)

const listHelp = `Each agent with its state, its user type, since when it is idle, its sidecar, and whether what it has stored outlives it. What it does
is what its lifecycle manager says on port 8377, by way of the API server; an agent that says nothing is taken to work. IDLE are those
that kubectl agents upgrade would take for idle.

Examples:
  kubectl agents list
  kubectl agents list -n dexorder-agents -l lifecycle.dexorder.io/user-type=paid

Exit codes:
  0  listed
  2  something is not understood, or could not be found out
`

var listVerb = verb{
	name:    "list",
	summary: "list the agents: state, user type, sidecar, storage",
	help:    listHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		l := &listFlags{}
		flags.StringVarP(&l.selector, "selector", "l", "", "labels of the Deployments that are meant")
		bindIdleFor(flags, &l.idleFor)
		l.fleetFlags.bind(flags)
		return l.run
	},
}

type listFlags struct {
	fleetFlags
	selector string
	idleFor  time.Duration
}

func (l *listFlags) run(s streams) int {
	s = s.forPeople()
	ctx, stop := untilInterrupted()
	defer stop()
	cluster, judge, _, err := l.connect(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tNAME\tSTATE\tSINCE\tUSER TYPE\tSIDECAR\tSTORAGE\tREASON")
	err = fleet.List(ctx, cluster, judge, l.agents, l.selector, l.idleFor, func(e fleet.Entry) error {
		since := "unknown"
		if !e.Since.IsZero() {
			since = e.Since.Local().Format(time.RFC3339)
		}
		sidecar := cmp.Or(e.SidecarImage, "none")
		if e.Sidecar != fleet.SidecarCurrent {
			sidecar += " (" + string(e.Sidecar) + ")"
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Namespace, e.Name, e.State, since, cmp.Or(string(e.UserType), "none"),
			sidecar, e.Storage, policy.Printable(e.Reason))
		return err
	})
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	return exitOK
}
