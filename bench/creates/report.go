package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// writeLines writes every create as a benchmark line, so that benchstat's median and interval are those of creates.
func writeLines(path string, variants []*variant) (err error) {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	fmt.Fprintf(w, "goos: %s\ngoarch: %s\npkg: github.com/dexorder/agent-lifecycle/bench/creates\n", runtime.GOOS, runtime.GOARCH)
	for _, v := range variants {
		for _, waited := range v.waited {
			fmt.Fprintf(w, "BenchmarkCreate/admission=%s 1 %d ns/op\n", v.name, waited.Nanoseconds())
		}
		for _, used := range v.serverCPU {
			fmt.Fprintf(w, "BenchmarkServer/admission=%s %d %d cpu-ns/op\n", v.name, batch, used.Nanoseconds()/batch)
		}
	}
	return w.Flush()
}

func writeTable(w io.Writer, variants []*variant) error {
	none := variants[0]
	fmt.Fprintf(w, "One client creates an agent's Deployment, %d times each. Milliseconds; added is over none; MB are 10^6 bytes.\n\n",
		len(none.waited))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tp50\tp90\tp99\tadded p50\tp90\tp99\tserver CPU\tAPI server CPU\tprivate MB\tanonymous\tresident\t")
	for _, v := range variants {
		fmt.Fprintf(t, "%s", v.name)
		for _, p := range percentiles {
			fmt.Fprintf(t, "\t%.2f", ms(percentile(v.waited, p)))
		}
		for _, p := range percentiles {
			fmt.Fprintf(t, "\t%+.2f", ms(percentile(v.waited, p)-percentile(none.waited, p)))
		}
		if v.server != 0 {
			fmt.Fprintf(t, "\t%.2f", ms(v.cpuPerCreate()))
		} else {
			fmt.Fprint(t, "\t-")
		}
		fmt.Fprintf(t, "\t%.2f", ms(v.apiCPU/time.Duration(len(v.waited))))
		if v.server != 0 {
			fmt.Fprintf(t, "\t%.1f\t%.1f\t%.1f\t\n", mb(v.memory.private), mb(v.memory.anonymous), mb(v.memory.resident))
		} else {
			fmt.Fprint(t, "\t-\t-\t-\t\n")
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return writeGoals(w, variants)
}

var percentiles = []int{50, 90, 99}

// writeGoals says how the real server stands to what it is meant to reach.
func writeGoals(w io.Writer, variants []*variant) error {
	byName := map[string]*variant{}
	for _, v := range variants {
		byName[v.name] = v
	}
	pair, ours := byName[namePair], byName[nameOurs]
	goals := []struct {
		what      string
		got, most float64
		unit      string
	}{
		{"over the floor of a pair at p50", ms(percentile(ours.waited, 50) - percentile(pair.waited, 50)), 0.6, "ms"},
		{"server CPU for a create", ms(ours.cpuPerCreate()), 1.0, "ms"},
		{"private memory without the program's text", mb(ours.memory.anonymous), 30, "MB"},
		{"resident memory", mb(ours.memory.resident), 60, "MB"},
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, g := range goals {
		met := "met"
		if g.got > g.most {
			met = "missed"
		}
		fmt.Fprintf(t, "ours: %s\t%.2f %s\tgoal: at most %g\t%s\n", g.what, g.got, g.unit, g.most, met)
	}
	return t.Flush()
}

func (v *variant) cpuPerCreate() time.Duration {
	var sum time.Duration
	for _, used := range v.serverCPU {
		sum += used
	}
	return sum / time.Duration(len(v.serverCPU)*batch)
}

// percentile is the p-th percentile by nearest rank.
func percentile(of []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(of))
	return sorted[max((len(sorted)*p+99)/100, 1)-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func mb(bytes int64) float64 { return float64(bytes) / 1e6 }
