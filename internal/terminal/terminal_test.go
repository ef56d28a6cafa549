package terminal

import (
	"bytes"
	"testing"
)

func TestPrintableLines(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ümlaut, 日本 and 🚀":        "plain, ümlaut, 日本 and 🚀",
		"two\nlines\tand a tab":          "two\nlines\tand a tab",
		"\x1b]0;pwned\a\x1b[2J":          `\x1b]0;pwned\a\x1b[2J`,
		"\u009b31m, \u202eltr, \x7f, \r": `\u009b31m, \u202eltr, \x7f, \r`,
		"broken \xff byte":               "broken � byte",
	} {
		if got := PrintableLines(in); got != want {
			t.Errorf("PrintableLines(%q) = %q, want %q", in, got, want)
		}
		var b bytes.Buffer
		w := NewWriter(&b)
		for i := range len(in) { // a character may arrive in parts
			if n, err := w.Write([]byte{in[i]}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
		}
		if got := b.String(); got != want {
			t.Errorf("byte by byte %q becomes %q, want %q", in, got, want)
		}
	}
	if got := Printable("a\nb"); got != `a\nb` {
		t.Errorf("Printable keeps a line break: %q", got)
	}
}
