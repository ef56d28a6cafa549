package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dexorder/agent-lifecycle/bench/timing"
)

// steps are the rows of the table of wakes.
var steps = []struct {
	name string
	took func(wake) time.Duration
}{
	{"connection → answer", func(w wake) time.Duration { return w.answered.Sub(w.asked) }},
	{"  connection → Deployment", func(w wake) time.Duration { return w.made.Sub(w.asked) }},
	{"  Deployment → Pod", func(w wake) time.Duration { return w.pod.Sub(w.made) }},
	{"  Pod → agent runs", func(w wake) time.Duration { return w.runs.Sub(w.pod) }},
	{"  agent runs → ready", func(w wake) time.Duration { return w.ready.Sub(w.runs) }},
	{"  ready → answer", func(w wake) time.Duration { return w.answered.Sub(w.ready) }},
}

func writeWakes(out io.Writer, wakes []wake) error {
	t := newTable(out, fmt.Sprintf("%d wakes of agents that had gone", len(wakes)))
	for _, step := range steps {
		took := make([]time.Duration, len(wakes))
		for i := range wakes {
			took[i] = step.took(wakes[i])
		}
		t.row(step.name, took)
	}
	return t.Flush()
}

func writeRequests(out io.Writer, requests map[string][]measured) error {
	fmt.Fprintln(out)
	t := newTable(out, fmt.Sprintf("%d requests to an agent that runs", len(requests[ways[0].name])))
	for _, way := range ways {
		took := make([]time.Duration, len(requests[way.name]))
		for i, m := range requests[way.name] {
			took[i] = time.Duration(m.Took)
		}
		t.row(way.name, took)
	}
	return t.Flush()
}

type table struct{ *tabwriter.Writer }

func newTable(out io.Writer, title string) table {
	t := table{tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)}
	fmt.Fprintf(t, "%s\tmin\tp50\tp95\tmax\t\n", title)
	return t
}

func (t table) row(name string, took []time.Duration) {
	slices.Sort(took)
	fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t\n", name, milliseconds(took[0]), milliseconds(timing.Percentile(took, 50)),
		milliseconds(timing.Percentile(took, 95)), milliseconds(took[len(took)-1]))
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d)/float64(time.Millisecond))
}
