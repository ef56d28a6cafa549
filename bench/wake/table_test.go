package main

import (
	"strings"
	"testing"
	"time"
)

// The steps of a wake add up to it, and p95 of forty is the 38th.
func TestTable(t *testing.T) {
	var wakes []wake
	began := time.Unix(0, 0)
	for i := range 40 {
		step := time.Duration(40-i) * time.Millisecond
		at := func(n int) time.Time { return began.Add(time.Duration(n) * step) }
		wakes = append(wakes, wake{at(0), at(1), at(2), at(3), at(4), at(5)})
	}
	var out strings.Builder
	if err := writeWakes(&out, wakes); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 1+len(steps) {
		t.Fatalf("%d lines:\n%s", len(lines), out.String())
	}
	if got, want := strings.Join(strings.Fields(lines[1])[3:], " "), "5.00 ms 100.00 ms 190.00 ms 200.00 ms"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for _, line := range lines[2:] {
		if !strings.HasSuffix(strings.Join(strings.Fields(line), " "), "1.00 ms 20.00 ms 38.00 ms 40.00 ms") {
			t.Errorf("a step is %q", line)
		}
	}
}
