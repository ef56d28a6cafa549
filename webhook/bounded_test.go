package webhook

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestBounded(t *testing.T) {
	for s, want := range map[string]string{"": "", "1234567890": "1234567890", "12345678901": "1234567…", "123456éabcd": "123456…"} {
		if got := bounded(s, 10); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestBoundedWarnings(t *testing.T) {
	long := strings.Repeat("é", maxWarning)
	var many []string
	for range 50 {
		many = append(many, long)
	}
	got := boundedWarnings(many)
	total := 0
	for _, w := range got {
		total += len(w)
		if len(w) > maxWarning || !utf8.ValidString(w) {
			t.Errorf("warning of %d bytes: %q", len(w), w)
		}
	}
	if total > maxWarnings || len(got) < 10 {
		t.Errorf("%d warnings of %d bytes in all", len(got), total)
	}
	if last := got[len(got)-1]; last != "and 35 more warnings" {
		t.Errorf("the last one says %q", last)
	}
	if boundedWarnings(nil) != nil {
		t.Error("warnings came from nothing")
	}
}
