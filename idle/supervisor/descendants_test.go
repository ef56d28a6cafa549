package supervisor

import (
	"os"
	"slices"
	"testing"
)

func TestParseStat(t *testing.T) {
	for line, want := range map[string]process{
		"12 (sh) S 1 12 12 0":          {12, 1, 12},
		"13 (a) Z (b) c) R 12 11 12 0": {13, 12, 11},
		"14 (dead) Z 12 11 12 0":       {},
		"15 sh S 1 12 12 0":            {},
		"16 (sh) S":                    {},
		"":                             {},
	} {
		if got, ok := parseStat([]byte(line)); got != want || ok != (want.pid != 0) {
			t.Errorf("%q is %v, %v; want %v", line, got, ok, want)
		}
	}
}

func TestDescendants(t *testing.T) {
	all := []process{{2, 1, 2}, {3, 2, 2}, {4, 3, 4}, {5, 9, 5}, {6, 6, 6}, {9, 1, 9}, {3, 4, 2}}
	var got []int
	for _, p := range descendants(all, 2) {
		got = append(got, p.pid)
	}
	if want := []int{3, 4}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !slices.ContainsFunc(processes(), func(p process) bool { return p.pid == os.Getpid() && p.parent == os.Getppid() }) {
		t.Error("/proc does not show this process")
	}
}
