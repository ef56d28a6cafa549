package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/archive"
)

const discardHelp = `Where the policy says reaper.namespaces.retain, the reaper lets go of what it has kept when that time is over: it deletes the archive
and gives each volume the reclaim policy back that it had, by which Kubernetes deletes or keeps it. This does so before that time, and where
nobody else does any more: after the system was removed, volumes that were kept stay with the reclaim policy Retain until an operator runs this.

Without a name the volumes that are kept are listed. The name is a namespace's, for all that is kept of it, or an archive's. Where there are
volumes, say what becomes of them. A volume that is bound, or waits for a claim, stays as it is.

  kubectl agents discard                             list the volumes that are kept
  kubectl agents discard agent-ceo --dry-run         say what is kept of it, and do nothing
  kubectl agents discard agent-ceo --volumes=delete  give its volumes the reclaim policy back that they had: their data are deleted
  kubectl agents discard agent-ceo --volumes=keep    leave its volumes, which nothing deletes any more
                                                     exit 0: done, 1: refused, or a volume stays, 2: could not be done
`

var discardVerb = verb{
	name:     "discard",
	summary:  "give up what is kept of a role agent's namespace that was reaped",
	help:     discardHelp,
	argument: "NAMESPACE",
	bind: func(flags *pflag.FlagSet) func(streams) int {
		d := &discardFlags{}
		d.clusterFlags.bind(flags)
		flags.StringVar(&d.volumes, "volumes", "", "what becomes of the volumes: delete or keep")
		flags.BoolVar(&d.dryRun, "dry-run", false, "say what is kept, and do nothing")
		flags.DurationVar(&d.timeout, "timeout", time.Minute, "how long all of it may take")
		return func(s streams) int { return d.run(s, flags.Arg(0)) }
	},
}

type discardFlags struct {
	clusterFlags
	volumes string
	dryRun  bool
	timeout time.Duration
}

func (d *discardFlags) run(s streams, name string) int {
	s = s.forPeople()
	choices := []archive.VolumeChoice{archive.DeleteVolumes, archive.KeepVolumes}
	switch choice := archive.VolumeChoice(d.volumes); {
	case d.timeout <= 0:
		s.fail("--timeout %s: accepted is a positive duration, such as 1m", d.timeout)
		return exitNotUnderstood
	case choice != "" && !slices.Contains(choices, choice):
		s.fail("--volumes=%s: accepted are delete and keep", d.volumes)
		return exitNotUnderstood
	case name == "" && (d.volumes != "" || d.dryRun):
		s.fail("say of which namespace or archive; without a name the volumes that are kept are listed")
		return exitNotUnderstood
	}
	a, err := d.archive(s)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	ctx, stop := untilInterrupted()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if name == "" {
		return listVolumes(ctx, s, a)
	}
	return d.discard(ctx, s, a, name)
}

func (d *discardFlags) discard(ctx context.Context, s streams, a *archive.Archive, name string) int {
	plan, err := a.PlanDiscard(ctx, name)
	switch {
	case errors.Is(err, archive.ErrRefused):
		s.fail("%v", err)
		return exitDenied
	case err != nil:
		s.fail("%v", err)
		return exitNotUnderstood
	}
	choice := archive.VolumeChoice(d.volumes)
	undecided := choice == "" && len(plan.Volumes) > 0
	if d.dryRun || undecided {
		for _, name := range plan.Archives {
			fmt.Fprintf(s.out, "archive %s\n", name)
		}
		printVolumes(s.out, plan.Volumes)
	}
	switch {
	case d.dryRun:
		return exitOK
	case undecided:
		s.fail("nothing is discarded: say what becomes of the volumes, --volumes=delete or --volumes=keep")
		return exitDenied
	case choice == "":
		choice = archive.KeepVolumes // there are none
	}
	results, err := a.Discard(ctx, plan, choice)
	code := exitOK
	for _, result := range results {
		fmt.Fprintf(s.out, "%s %s: %s", strings.ToLower(result.Kind), result.Name, result.Outcome)
		if result.Detail != "" {
			fmt.Fprintf(s.out, ": %s", result.Detail)
		}
		fmt.Fprintln(s.out)
		if result.Outcome == archive.Stays {
			code = exitDenied
		}
	}
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	return code
}

func listVolumes(ctx context.Context, s streams, a *archive.Archive) int {
	volumes, err := a.Volumes(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	if len(volumes) == 0 {
		fmt.Fprintln(s.out, "no volume is kept")
		return exitOK
	}
	printVolumes(s.out, volumes)
	return exitOK
}

// printVolumes shows volumes that are kept, as a table.
func printVolumes(w io.Writer, volumes []archive.KeptVolume) {
	if len(volumes) == 0 {
		return
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "VOLUME\tNAMESPACE\tCLAIM\tCAPACITY\tSTATUS\tRECLAIM POLICY BEFORE\tKEPT UNTIL\tARCHIVE")
	for i := range volumes {
		v := &volumes[i]
		until := "for ever"
		if !v.KeptUntil.IsZero() {
			until = v.KeptUntil.Local().Format(time.RFC3339)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Name, v.Namespace, v.Claim, v.Capacity, v.Phase, v.ReclaimPolicy, until, v.Archive)
	}
	_ = table.Flush()
}
