package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

func newTable(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
}

// writeLooks prints one table for each size: the shell loop, a pass of a process of its own, and passes of the loop.
func writeLooks(w io.Writer, looks []*look) error {
	for _, l := range looks {
		fmt.Fprintf(w, "\n%d namespaces with %d Pods and a Deployment each: one look at all, read only. MB are 10^6 bytes.\n", l.namespaces, podsEach)
		if l.sampled < l.namespaces {
			fmt.Fprintf(w, "The shell loop looked at %d of them; the rest is extrapolated in a straight line, its list is not.\n", l.sampled)
		}
		fmt.Fprintln(w)
		t := newTable(w)
		fmt.Fprintln(t, "\tseconds\ttimes as fast\tcalls\tof the calls\tCPU s\tof the CPU\tAPI server CPU s\tpeak MB\t")
		row := func(name string, wall time.Duration, calls float64, cpu time.Duration, server float64, peak int64) {
			fmt.Fprintf(t, "%s\t%.2f\t%.1f\t%.0f\t%.5f\t%.2f\t%.4f\t%.2f\t%.0f\t\n", name, wall.Seconds(), ratio(l.shell.Wall.Seconds(), wall.Seconds()),
				calls, ratio(calls, l.shellCalls), cpu.Seconds(), ratio(cpu.Seconds(), l.shell.CPU.Seconds()), server, mb(peak))
		}
		row("shell loop", l.shell.Wall, l.shellCalls, l.shell.CPU, l.shellServer, l.shell.Peak)
		row("reap --once --dry-run", l.once.Wall, float64(l.onceCalls.sum()), l.once.CPU, l.onceServer, l.once.Peak)
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintf(w, "\nreap --once: %s, of which %d streamed what there is.\n", l.onceCalls, l.onceCalls.streamed)
		fmt.Fprintf(w, "Loop: first pass after %.2f s (%s), the rest of its writes within %.1f s.\n", l.first.Seconds(), l.firstCalls, l.written.Seconds())
		fmt.Fprintf(w, "Loop, resident: %.0f MB at rest, %.0f MB at its peak.\n\nPasses in which nothing has changed:\n\n", mb(l.resident), mb(l.peak))
		t = newTable(w)
		fmt.Fprintln(t, "\tms\tof it leftovers\ttimes as fast as the shell loop\tcalls\t")
		for _, p := range l.passes {
			l.writePass(t, "loop", p)
		}
		for _, p := range l.bare {
			l.writePass(t, "loop, leftovers off", p)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (l *look) writePass(w io.Writer, name string, p pass) {
	fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%.0f\t%s\t\n", name, ms(p.took), ms(p.leftovers), ratio(l.shell.Wall.Seconds(), p.took.Seconds()), p.calls)
}

func writeDrains(w io.Writer, drains []*drained) error {
	fmt.Fprintf(w, "\n%d namespaces to go, with a claim and a Deployment each, and a bystander with ten requests a second. Milliseconds.\n\n", drains[0].namespaces)
	t := newTable(w)
	fmt.Fprintln(t, "parallelism\tseconds\ta second\tAPI server CPU s\tquiet p50\tp99\tmax\tduring p50\tp99\tmax\tp99 of quiet's\tcontrollers alone p50\tp99\tmax\tp99 of quiet's\tpeak MB\t")
	for _, d := range drains {
		fmt.Fprintf(t, "%d\t%.0f\t%.1f\t%.0f", d.parallelism, d.took.Seconds(), float64(d.namespaces)/d.took.Seconds(), d.cpu)
		for i, s := range []waited{d.before, d.during, d.after} {
			fmt.Fprintf(t, "\t%.1f\t%.1f\t%.1f", ms(s.p50), ms(s.p99), ms(s.max))
			if i > 0 {
				fmt.Fprintf(t, "\t%.2f", ratio(ms(s.p99), ms(d.before.p99)))
			}
		}
		fmt.Fprintf(t, "\t%.0f\t\n", mb(d.peak))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, d := range drains {
		fmt.Fprintf(w, "\nParallelism %d: %s.\n", d.parallelism, d.calls)
		for verb, name := range bystanderVerbs {
			fmt.Fprintf(w, "  bystander's %s: p50 and p99 %s quiet, %s during, %s with the controllers alone\n",
				name, d.before.verbs[verb], d.during.verbs[verb], d.after.verbs[verb])
		}
	}
	return nil
}

// writeGoals says how the largest fleet and the drains stand to what is meant to be reached.
func writeGoals(w io.Writer, looks []*look, drains []*drained) error {
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	goal := func(what string, got, most float64, unit string) {
		met := "met"
		if got > most {
			met = "missed"
		}
		fmt.Fprintf(t, "%s\t%.2f %s\tgoal: at most %g\t%s\n", what, got, unit, most, met)
	}
	if len(looks) > 0 {
		l := looks[len(looks)-1]
		for _, of := range []struct {
			name   string
			passes []pass
		}{{"", l.passes}, {", leftovers off", l.bare}} {
			slowest := slices.MaxFunc(of.passes, func(a, b pass) int { return int(a.took - b.took) })
			lists, writes := 0, 0
			for _, p := range of.passes {
				lists += p.calls.verbs["list"]
				writes += p.calls.writes()
			}
			name := fmt.Sprintf("%d namespaces, pass with nothing changed%s: ", l.namespaces, of.name)
			goal(name+"slowest of "+fmt.Sprint(len(of.passes)), slowest.took.Seconds(), 1, "s")
			goal(name+"lists", float64(lists)/float64(len(of.passes)), 0, "a pass")
			goal(name+"writes", float64(writes)/float64(len(of.passes)), 0, "a pass")
		}
		goal(fmt.Sprintf("%d namespaces, resident at rest", l.namespaces), mb(l.resident), 150, "MB")
	}
	for _, d := range drains {
		name := fmt.Sprintf("%d namespaces drained with parallelism %d: ", d.namespaces, d.parallelism)
		// The goal is ten minutes for five thousand.
		goal(name+"time", d.took.Minutes(), 10*float64(d.namespaces)/5000, "min")
		goal(name+"bystander's p99 of quiet's", ratio(ms(d.during.p99), ms(d.before.p99)), 2, "times")
	}
	return t.Flush()
}

func (q quantiles) String() string { return fmt.Sprintf("%.1f and %.1f", ms(q.p50), ms(q.p99)) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }
