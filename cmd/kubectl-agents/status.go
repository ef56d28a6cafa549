package main

import (
	"cmp"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/fleet"
	"github.com/dexorder/agent-lifecycle/policy"
)

const statusHelp = `What is known of one agent, by the name of its Deployment: its state and since when, what keeps it alive or keeps it from running, in the
kubelet's words, when it stops, why it is not deleted when it is idle (if it is not), what an upgrade would change of it, and whether its storage outlives
it. The states are those of kubectl agents list.

Examples:
  kubectl agents status agent-user-abc123
  kubectl agents status agent -n agent-marketing

Exit codes:
  0  shown
  1  there is no such agent
  2  something is not understood, or could not be found out
`

var statusVerb = verb{
	name:     "status",
	summary:  "tell of one agent in full: state, reason, when it stops, why it stays",
	help:     statusHelp,
	argument: "NAME",
	bind: func(flags *pflag.FlagSet) func(streams) int {
		f := &fleetFlags{}
		f.bind(flags)
		return func(s streams) int { return f.status(s, flags.Arg(0)) }
	},
}

func (f *fleetFlags) status(s streams, name string) int {
	s = s.forPeople()
	if name == "" {
		s.fail("kubectl agents status: say which agent, by the name of its Deployment; kubectl agents list names them")
		return exitNotUnderstood
	}
	ctx, stop := untilInterrupted()
	defer stop()
	cluster, judge, _, err := f.connect(ctx)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	found := 0
	lister := &fleet.Lister{Cluster: cluster, Judge: judge, Namespace: f.agents, Name: name, Now: time.Now}
	unread, err := lister.List(ctx, func(e fleet.Entry) error {
		found++
		return writeStatus(s.out, &e, time.Now())
	})
	s.noteUnread(unread)
	switch {
	case err != nil:
		s.fail("%v", err)
		return exitNotUnderstood
	case found == 0:
		s.fail("there is no Deployment %q in %s: an agent of that name is DELETED, or was never made", name, cmp.Or(f.agents, judge.Covered()))
		return exitDenied
	}
	return exitOK
}

// writeStatus writes what is known of an agent, one fact a line.
func writeStatus(w io.Writer, e *fleet.Entry, now time.Time) error {
	fact := func(name, value string) error {
		_, err := fmt.Fprintf(w, "  %-11s%s\n", name+":", policy.Printable(value))
		return err
	}
	if _, err := fmt.Fprintf(w, "%s/%s: %s since %s\n", e.Namespace, e.Name, e.State, shownTime(e.Since)); err != nil {
		return err
	}
	until := stops(e, now)
	if e.NeverStops == "" && !e.StopsAt.IsZero() {
		until = fmt.Sprintf("%s, at %s", until, shownTime(e.StopsAt))
	}
	lines := [][2]string{{"problem", e.Problem}, {"reason", e.Reason}, {"stops", until}}
	for _, why := range e.Stays() {
		lines = append(lines, [2]string{"stays", why})
	}
	if e.Scaler != "" {
		lines = append(lines, [2]string{"replicas", setsReplicas(e)})
	}
	lines = append(lines, [][2]string{{"user type", cmp.Or(string(e.UserType), "none")}, {"sidecar", shownSidecar(e)}}...)
	for _, change := range e.Upgrade {
		lines = append(lines, [2]string{"upgrade", change})
	}
	storage := e.Storage
	if e.StorageProtected != "" {
		storage += ", protected: " + e.StorageProtected
	}
	lines = append(lines, [2]string{"storage", storage})
	for _, line := range lines {
		if line[1] == "" {
			continue
		}
		if err := fact(line[0], line[1]); err != nil {
			return err
		}
	}
	return nil
}
