package main

import "testing"

func TestSamples(t *testing.T) {
	s := readSamples([]byte(`# HELP passes_total Passes.
# TYPE passes_total counter
passes_total{reaper="leftovers",result="good"} 3
passes_total{reaper="leftovers",result="failed"} 1
passes_total{reaper="agents",result="good"} 7
passes_total_seconds 1e-3
`))
	for _, tc := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"passes_total", nil, 11},
		{"passes_total", []string{`reaper="leftovers"`}, 4},
		{"passes_total", []string{`result="good"`, `reaper="leftovers"`}, 3},
		{"passes_total", []string{`reaper="left"`}, 0},
		{"passes_total_seconds", nil, 0.001},
	} {
		if got := s.sum(tc.name, tc.labels...); got != tc.want {
			t.Errorf("sum of %s %v: got %v, want %v", tc.name, tc.labels, got, tc.want)
		}
	}
}
