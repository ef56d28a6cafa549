package terminal

import (
	"bytes"
	"encoding/json"
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

func TestPrintableJSON(t *testing.T) {
	in := map[string]string{"reason": "\x1b[2J \u009b31m \u202e \x7f \U000e0001 ü 🚀"}
	encoded, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := PrintableJSON(encoded)
	if want := "{\n  \"reason\": \"\\u001b[2J \\u009b31m \\u202e \\u007f \\udb40\\udc01 ü 🚀\"\n}"; string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var out map[string]string
	if err := json.Unmarshal(got, &out); err != nil || out["reason"] != in["reason"] {
		t.Errorf("it has become %q, %v", out, err)
	}
}
