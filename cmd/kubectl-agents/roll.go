package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/dexorder/agent-lifecycle/fleet"
)

const adoptHelp = `Agents that were there before the installation run on as they are. Here they become agents of the system, one after the other: each gets
what the webhook injects (sidecar, settings, labels, the Recreate strategy, safe defaults), and is restarted for it. Nothing else of it
is changed. --dry-run shows it for each.

Agents that the policy would refuse are listed and left as they are. So are agents that work: only what says that it is idle, or does not
run at all, is restarted. An agent without a lifecycle manager on port 8377 says nothing, and counts as working; --restart-working
restarts those too, after all others. It is looked again right before each restart.

It stops at the first agent that is not ready in time, and says why; so does each later run, until that agent is well or --skip-failed
is given. Interrupted, it waits for the agents that it has just restarted, and then ends; run again, it goes on where it was.

Examples:
  kubectl agents adopt --dry-run
  kubectl agents adopt --rate 10/m
  kubectl agents adopt -n dexorder-agents -l team=red --restart-working

Exit codes:
  0  all are adopted
  1  some are left: they work, are refused, or did not come up
  2  something is not understood, or could not be found out
`

const upgradeHelp = `Agents keep the sidecar that they were made with. Here those with another one than the policy names now, or with other settings, get
today's, one after the other, and are restarted for it. Nothing else of them is changed.

With --only-idle, which is the default, agents that work are left as they are: an agent is restarted if it says, on its lifecycle
manager's port 8377, that nothing keeps it and its last activity was at least --idle-for ago, or if it does not run at all. What cannot
be asked counts as working: the API server has to reach agents on that port. It is looked again right before each restart. With --only-idle=false the others follow at the end.

It stops at the first agent that is not ready in time, and says why; so does each later run, until that agent is well or --skip-failed
is given. Interrupted, it waits for the agents that it has just restarted, and then ends; run again, it goes on where it was.

Examples:
  kubectl agents upgrade --only-idle --dry-run
  kubectl agents upgrade --only-idle --rate 30/m

Exit codes:
  0  all are up to date
  1  some are left: they work, are refused, or did not come up
  2  something is not understood, or could not be found out
`

var adoptVerb = verb{
	name:    "adopt",
	summary: "bring agents from before the installation under the system, paced",
	help:    adoptHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		r := &rollFlags{mode: fleet.Adopt}
		flags.BoolVar(&r.working, "restart-working", false, "restart agents that work, or do not say whether they do, too")
		r.bind(flags)
		return r.run
	},
}

var upgradeVerb = verb{
	name:    "upgrade",
	summary: "bring today's sidecar to agents that are idle, paced",
	help:    upgradeHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		r := &rollFlags{mode: fleet.Upgrade}
		onlyIdle := flags.Bool("only-idle", true, "leave agents that work as they are")
		r.bind(flags)
		return func(s streams) int {
			r.working = !*onlyIdle
			return r.run(s)
		}
	},
}

type rollFlags struct {
	fleetFlags
	mode                 fleet.Mode
	rate, selector       string
	readyWithin, idleFor time.Duration
	maxUnavailable       int
	working, skipFailed  bool
	dryRun               bool
}

func (r *rollFlags) bind(flags *pflag.FlagSet) {
	flags.StringVar(&r.rate, "rate", "10/m", "how many agents to restart at most, in `N/s`, N/m or N/h")
	flags.IntVar(&r.maxUnavailable, "max-unavailable", 1, "how many agents may be on their way up at once; the next one waits for one of them")
	bindIdleFor(flags, &r.idleFor)
	flags.DurationVar(&r.readyWithin, "ready-within", 3*time.Minute, "how long an agent may take to become ready")
	flags.BoolVar(&r.skipFailed, "skip-failed", false, "go on although agents are not ready that an earlier run has restarted")
	flags.BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and do nothing")
	flags.StringVarP(&r.selector, "selector", "l", "", "labels of the Deployments that are meant")
	r.fleetFlags.bind(flags)
}

func bindIdleFor(flags *pflag.FlagSet, idleFor *time.Duration) {
	flags.DurationVar(idleFor, "idle-for", 5*time.Minute, "how long ago the last activity of an agent must be that nothing keeps alive")
}

func (r *rollFlags) run(s streams) int {
	s = s.forPeople()
	every, err := fleet.ParseRate(r.rate)
	if err != nil {
		s.fail("--rate: %v", err)
		return exitNotUnderstood
	}
	if _, err := labels.Parse(r.selector); err != nil {
		s.fail("--selector %q: %v", r.selector, err)
		return exitNotUnderstood
	}
	if r.maxUnavailable < 1 {
		s.fail("--max-unavailable %d: accepted is a number of at least 1", r.maxUnavailable)
		return exitNotUnderstood
	}
	if r.readyWithin <= 0 || r.idleFor < 0 {
		s.fail("--ready-within %s, --idle-for %s: accepted are durations such as 3m; that of --ready-within is more than 0", r.readyWithin, r.idleFor)
		return exitNotUnderstood
	}
	ctx, stop := untilInterrupted()
	defer stop()
	cluster, judge, _, err := r.connect(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	roll := &fleet.Roll{
		Cluster: cluster, Judge: judge, Mode: r.mode, Namespace: r.agents, Selector: r.selector, Every: every, ReadyWithin: r.readyWithin,
		MaxUnavailable: r.maxUnavailable, IdleFor: r.idleFor, Working: r.working, SkipFailed: r.skipFailed, DryRun: r.dryRun, Now: time.Now,
		Say: func(step fleet.Step) { s.tell(&step) },
	}
	tally, err := roll.Run(ctx)
	if err == nil || len(tally) > 0 {
		fmt.Fprintf(s.out, "%s\n", tally)
	}
	left := tally[fleet.Refused] + tally[fleet.LeftOut] + tally[fleet.Failed] + tally[fleet.Would]
	switch {
	case errors.Is(err, context.Canceled):
		s.fail("interrupted; run this again to go on")
		return exitDenied
	case err != nil:
		s.fail("%v", err)
		return exitNotUnderstood
	case tally[fleet.Failed] > 0:
		s.fail("stopped at an agent that did not become ready")
		return exitDenied
	case left > 0:
		return exitDenied
	}
	return exitOK
}

// tell says what became of an agent.
func (s streams) tell(step *fleet.Step) {
	fmt.Fprint(s.out, step)
}
