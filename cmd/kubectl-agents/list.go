package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy"
)

const listHelp = `Each agent with its state, since when, when it stops, its user type, its sidecar, whether what it has stored outlives it, and why. The
states are CREATED (its Pod is not there or not ready), RUNNING, IDLE (it has been warned, and stops at the time that is shown unless
something happens) and SHUTDOWN (it has ended because it was idle, or is about to), as docs/concepts.md has them. The gateway shows the
same.

Of an agent that does not run the reason is the kubelet's, such as ImagePullBackOff, and SINCE is since when. What a running agent does is
what its lifecycle manager says on port 8377, by way of the API server; an agent that says nothing is RUNNING, and when it stops is
unknown. STOPS is "never" where its user type never stops, and "-" while something keeps it alive.

A sidecar is outdated if an upgrade would give the agent another one. Where it is today's, and an upgrade would change what else is injected,
the other parts are. What an upgrade would change, and the whole story of one agent: kubectl agents status NAME.

Examples:
  kubectl agents list
  kubectl agents list -n dexorder-agents -l lifecycle.dexorder.io/user-type=paid

Exit codes:
  0  listed
  2  something is not understood, or could not be found out
`

var listVerb = verb{
	name:    "list",
	summary: "list the agents: state, when they stop, user type, sidecar, storage",
	help:    listHelp,
	bind: func(flags *pflag.FlagSet) func(streams) int {
		l := &listFlags{}
		flags.StringVarP(&l.selector, "selector", "l", "", "labels of the Deployments that are meant")
		// Scripts give it; it decided what IDLE meant before that was what the agent itself says.
		bindIdleFor(flags, &l.idleFor)
		l.idleForGiven = flags.Lookup("idle-for")
		l.idleForGiven.Hidden = true
		l.fleetFlags.bind(flags)
		return l.run
	},
}

type listFlags struct {
	fleetFlags
	selector     string
	idleFor      time.Duration
	idleForGiven *pflag.Flag
}

func (l *listFlags) run(s streams) int {
	s = s.forPeople()
	if l.idleForGiven.Changed {
		fmt.Fprintln(s.err, "note: --idle-for changes nothing here any more: IDLE are the agents that have been warned")
	}
	ctx, stop := untilInterrupted()
	defer stop()
	cluster, judge, _, err := l.connect(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NAMESPACE\tNAME\tSTATE\tSINCE\tSTOPS\tUSER TYPE\tSIDECAR\tSTORAGE\tREASON")
	lister := &fleet.Lister{Cluster: cluster, Judge: judge, Namespace: l.agents, Selector: l.selector, Now: time.Now}
	unread, err := lister.List(ctx, func(e fleet.Entry) error {
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", e.Namespace, e.Name, e.State, shownTime(e.Since), stops(&e, time.Now()),
			cmp.Or(string(e.UserType), "none"), shownSidecar(&e), e.Storage, policy.Printable(shortReason(&e)))
		return err
	})
	if flushed := w.Flush(); err == nil {
		err = flushed
	}
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	s.noteUnread(unread)
	return exitOK
}

// noteUnread says what the caller has no right to see.
func (s streams) noteUnread(unread []string) {
	for _, what := range unread {
		fmt.Fprintf(s.err, "note: %s\n", what)
	}
}

// shortReason is why an agent is in its state, and why it stays, on one line. That its user type never stops is in
// another column.
func shortReason(e *fleet.Entry) string {
	parts := []string{cmp.Or(e.Problem, e.Reason)}
	short := *e
	short.NeverStops = ""
	for _, why := range short.Stays() {
		parts = append(parts, "it stays: "+why)
	}
	if e.Scaler != "" {
		parts = append(parts, setsReplicas(e))
	}
	if e.StorageProtected != "" {
		parts = append(parts, "its storage is protected: "+e.StorageProtected)
	}
	return strings.Join(parts, "; ")
}

func setsReplicas(e *fleet.Entry) string {
	return fmt.Sprintf("an autoscaler (%s) sets its replicas", e.Scaler)
}

// stops says when an agent stops if nothing happens.
func stops(e *fleet.Entry, now time.Time) string {
	switch {
	case e.NeverStops != "":
		return "never"
	case !e.StopsAt.IsZero() && e.StopsAt.After(now):
		return "in " + e.StopsAt.Sub(now).Round(time.Second).String()
	case !e.StopsAt.IsZero():
		return "now"
	case e.Ready && !e.Asked:
		return "unknown"
	}
	return "-"
}

func shownTime(t time.Time) string {
	if t.IsZero() {
		return "unknown"
	}
	return t.Local().Format(time.RFC3339)
}

func shownSidecar(e *fleet.Entry) string {
	sidecar := cmp.Or(e.SidecarImage, "none")
	switch {
	case e.Sidecar == fleet.SidecarCurrent:
		return sidecar
	case e.OtherParts:
		return sidecar + " (other parts outdated)"
	}
	return sidecar + " (" + string(e.Sidecar) + ")"
}
