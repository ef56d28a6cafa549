package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dexorder/agent-lifecycle/bench/timing"
)

// record is one end: when each thing happened.
type record struct {
	exit     time.Time // the agent, right before
	known    time.Time // the sidecar
	proof    time.Time // the Pod's status, as a watch brings it
	accepted time.Time // the Deployment goes, as a watch brings it
	gone     time.Time // Deployment, ReplicaSet, Pod and claim have gone, as watches bring it
}

// steps are the rows of the table.
var steps = []struct {
	name string
	took func(record) time.Duration
}{
	{"exit → sidecar knows", func(r record) time.Duration { return r.known.Sub(r.exit) }},
	{"exit → proof in the Pod's status", func(r record) time.Duration { return r.proof.Sub(r.exit) }},
	{"exit → DELETE accepted", func(r record) time.Duration { return r.accepted.Sub(r.exit) }},
	{"proof → DELETE accepted", func(r record) time.Duration { return r.accepted.Sub(r.proof) }},
	{"exit → all gone", func(r record) time.Duration { return r.gone.Sub(r.exit) }},
}

func writeTable(out io.Writer, records []record) error {
	if len(records) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%d lives\tmin\tp50\tp99\tmax\t\n", len(records))
	for _, step := range steps {
		took := make([]time.Duration, len(records))
		for i := range records {
			took[i] = step.took(records[i])
		}
		slices.Sort(took)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", step.name, milliseconds(took[0]), milliseconds(timing.Percentile(took, 50)),
			milliseconds(timing.Percentile(took, 99)), milliseconds(took[len(took)-1]))
	}
	return w.Flush()
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}
