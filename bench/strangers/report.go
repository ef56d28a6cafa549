package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/dexorder/agent-lifecycle/bench/timing"
)

// results are of one run.
type results struct {
	calm, attacked creations
	attack         attackCounts
	restarts       int
	peak           int64
}

func (r *results) write(out io.Writer, o *options) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\tcreates\trefused\tp50 ms\tp99 ms\t")
	for _, row := range []struct {
		name string
		of   creations
	}{{"without attack", r.calm}, {"with attack", r.attacked}} {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t\n", row.name, len(row.of.waited), len(row.of.refused), milliseconds(row.of, 50), milliseconds(row.of, 99))
	}
	fmt.Fprintf(w, "ratio\t\t\t%.1f\t%.1f\t\n", milliseconds(r.attacked, 50)/milliseconds(r.calm, 50), milliseconds(r.attacked, 99)/milliseconds(r.calm, 99))
	w.Flush()
	fmt.Fprintf(out, "\nattack: %d silent connections at once, opened %d times; %d bodies sent of %.0f a second, answers: %v; %.2f of a core\n",
		o.load.Connections, r.attack.Opened, r.attack.Sent, o.load.Bodies, r.attack.Answers, r.attack.Cores)
	fmt.Fprintf(out, "servers: %d ended and were started again; peak %d MiB resident, of %d MiB\n", r.restarts, r.peak>>20, o.memory>>20)
	for _, text := range slices.Sorted(maps.Keys(kinds(r.attacked.refused))) {
		fmt.Fprintf(out, "refused: %d x %s\n", kinds(r.attacked.refused)[text], text)
	}
}

// kinds counts errors by their text, cut off where it is long.
func kinds(errs []error) map[string]int {
	found := map[string]int{}
	for _, err := range errs {
		text := err.Error()
		found[text[:min(len(text), 160)]]++
	}
	return found
}

func milliseconds(c creations, percentile int) float64 {
	if len(c.waited) == 0 {
		return 0
	}
	return float64(timing.Percentile(c.waited, percentile)) / float64(time.Millisecond)
}

// check is what must hold on every machine, however busy: nobody is refused, and every server lives through it within its memory.
func (r *results) check(o *options) error {
	var errs []error
	if n := len(r.attacked.refused); n > 0 {
		errs = append(errs, fmt.Errorf("%d of %d creations were refused, the first: %w", n, len(r.attacked.waited), r.attacked.refused[0]))
	}
	if r.restarts > 0 {
		errs = append(errs, fmt.Errorf("servers ended %d times", r.restarts))
	}
	if r.peak > o.memory {
		errs = append(errs, fmt.Errorf("a server had %d MiB resident, of %d MiB", r.peak>>20, o.memory>>20))
	}
	if r.attack.Sent == 0 && o.load.Bodies > 0 || r.attack.Opened < o.load.Connections {
		errs = append(errs, fmt.Errorf("there was no attack: %d bodies sent, %d of %d connections opened", r.attack.Sent, r.attack.Opened, o.load.Connections))
	}
	return errors.Join(errs...)
}
