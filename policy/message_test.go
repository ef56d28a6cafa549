package policy

import "testing"

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ‘text’ 漢字 😀": "plain ‘text’ 漢字 😀",
		"a\nb\r\t":          `a\nb\r\t`,
		"\x1b[31mred":       `\x1b[31mred`,
		"it's\u202e":        `it's\u202e`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %s, want %s", in, got, want)
		}
	}
}
