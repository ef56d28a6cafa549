// Package terminal makes text from elsewhere safe to show. An agent chooses its reasons, its errors and its names of
// images; printed as they are, escape sequences in them would draw whatever they like on an operator's terminal.
package terminal

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Printable escapes what a text from elsewhere may hold that does not belong on a line of a terminal.
func Printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		escape(&b, r)
	}
	return b.String()
}

// PrintableLines is Printable for each line of a text. Line breaks and tabs stay.
func PrintableLines(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r == '\n' || r == '\t' {
			b.WriteRune(r)
			continue
		}
		escape(&b, r)
	}
	return b.String()
}

func escape(b *strings.Builder, r rune) {
	if unicode.IsPrint(r) {
		b.WriteRune(r)
		return
	}
	b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
}

// Writer passes on what is written to it as PrintableLines has it. It is for output that people read: what programs read
// may hold whatever it likes. It is safe for concurrent use.
type Writer struct {
	to io.Writer

	mu   sync.Mutex
	rest []byte // the beginning of a character whose end was not written yet
}

// NewWriter returns a Writer.
func NewWriter(to io.Writer) *Writer { return &Writer{to: to} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := slices.Concat(w.rest, p)
	end := len(text)
	for i := max(0, end-utf8.UTFMax+1); i < end; i++ {
		if utf8.RuneStart(text[i]) && !utf8.FullRune(text[i:]) {
			end = i
			break
		}
	}
	w.rest = bytes.Clone(text[end:])
	if _, err := io.WriteString(w.to, PrintableLines(string(text[:end]))); err != nil {
		return 0, err
	}
	return len(p), nil
}

// PrintableJSON escapes in a JSON text what Printable would escape, so that it stays the same JSON. JSON's own encoder
// leaves the control characters above ASCII as they are.
func PrintableJSON(text []byte) []byte {
	var out []byte
	for _, r := range string(text) {
		switch {
		case unicode.IsPrint(r) || r == '\n':
			out = utf8.AppendRune(out, r)
		default:
			for _, unit := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
	}
	return out
}
