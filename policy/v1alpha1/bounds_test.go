package v1alpha1

import (
	"runtime"
	"strings"
	"testing"
)

// Files that are small and costly are refused before they are parsed.
func TestCostlyFilesAreRefused(t *testing.T) {
	for name, tt := range map[string]struct{ file, message string }{
		"values":         {"[" + strings.Repeat("a,", MaxSize/2-1), "more than 150000 commas"},
		"brackets":       {strings.Repeat("[", 1000), "nested more than 32 deep"},
		"braces":         {strings.Repeat("{a: ", 1000), "nested more than 32 deep"},
		"dashes":         {strings.Repeat("- ", 1000), "nested more than 32 deep"},
		"question marks": {strings.Repeat("? ", 1000), "nested more than 32 deep"},
		"documents":      {strings.Repeat("---\n", 1000), "more than 100 documents"},
		"mistakes":       {"a: {" + strings.Repeat(`? "`+strings.Repeat("x", 63)+`"`+"\n", 1) + ": [" + strings.Repeat("null,", 40000) + "]}", "and 952 more"},
		"aliases of aliases": {"a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n" +
			"d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n", "more than 50000 values"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode([]byte(tt.file))
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.message) || len(err.Error()) > 64<<10 {
				t.Errorf("%.300v; want %q", err, tt.message)
			}
			if cost := after.TotalAlloc - before.TotalAlloc; cost > 64<<20 {
				t.Errorf("%d bytes were allocated for a file of %d", cost, len(tt.file))
			}
		})
	}
}

// What is long, and not deep, is read: comments, and rules of dashes in them.
func TestHarmlessFilesAreRead(t *testing.T) {
	file := string(Example())
	for _, comment := range []string{"# " + strings.Repeat("-", 200), "# " + strings.Repeat("[x] ", 500), "# - a - b - c"} {
		file += comment + "\n"
	}
	if _, err := Decode([]byte(file)); err != nil {
		t.Error(err)
	}
}
