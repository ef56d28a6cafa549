package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(100 - i)
	}
	for _, tc := range []struct {
		of   []time.Duration
		p    int
		want time.Duration
	}{
		{hundred, 50, 50},
		{hundred, 90, 90},
		{hundred, 99, 99},
		{[]time.Duration{3, 1, 2}, 50, 2},
		{[]time.Duration{7}, 99, 7},
	} {
		if got := percentile(tc.of, tc.p); got != tc.want {
			t.Errorf("percentile %d of %d values: got %d, want %d", tc.p, len(tc.of), got, tc.want)
		}
	}
}

func TestReport(t *testing.T) {
	millisecond := time.Millisecond
	results := []*variant{
		{name: nameNone, waited: []time.Duration{2 * millisecond, 4 * millisecond}, apiCPU: 6 * millisecond},
		{
			name: namePair, server: 1, waited: []time.Duration{3 * millisecond, 5 * millisecond},
			serverCPU: []time.Duration{batch * millisecond / 2}, memory: memory{resident: 5e6, private: 3e6, anonymous: 2e6},
		},
		{
			name: nameOurs, server: 1, waited: []time.Duration{4 * millisecond, 6 * millisecond},
			serverCPU: []time.Duration{batch * millisecond, batch * millisecond / 2}, memory: memory{resident: 61e6, private: 40e6, anonymous: 29e6},
		},
	}
	var table strings.Builder
	if err := writeTable(&table, results); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"none  2.00  4.00",
		"floor-pair  3.00  5.00  5.00      +1.00  +1.00  +1.00        0.50            0.00         3.0        2.0       5.0",
		"over the floor of a pair at p50            1.00 ms   goal: at most 0.6  missed",
		"server CPU for a create                    0.75 ms   goal: at most 1    met",
		"private memory without the program's text  29.00 MB  goal: at most 30   met",
		"resident memory                            61.00 MB  goal: at most 60   missed",
	} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("no %q in\n%s", want, &table)
		}
	}

	path := filepath.Join(t.TempDir(), "creates.txt")
	if err := writeLines(path, results); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"BenchmarkCreate/admission=none 1 2000000 ns/op\n",
		"BenchmarkServer/admission=ours 50 500000 cpu-ns/op\n",
	} {
		if !strings.Contains(string(lines), want) {
			t.Errorf("no %q in\n%s", want, lines)
		}
	}
}
