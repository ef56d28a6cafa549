package manifest

import "bytes"

// chunk is the text of one YAML document, or of several JSON values.
type chunk struct {
	// text holds the document with the comments and markers before it.
	text []byte

	// line is the number, from 1, of text's first line; first that of the first line that is neither comment nor marker.
	line, first int

	// marker is the offset of a "---" line with nothing else on it, and markerEnd where the next line begins. Equal if
	// there is none.
	marker, markerEnd int

	// bound says that the marker cannot be taken away: directives stand before it or content behind it.
	bound bool
}

// split cuts a YAML stream into its documents, leaving out those that hold nothing but comments. It works on lines,
// which YAML allows: a line that begins with a marker ends the document whatever it stood in.
func split(data []byte) []chunk {
	var chunks []chunk
	var open bool // The current chunk has seen its "---".
	start := 0
	current := chunk{line: 1}
	flush := func(end, next, nextLine int) {
		if current.first > 0 {
			current.text = data[start:end]
			chunks = append(chunks, current)
		}
		start, current, open = next, chunk{line: nextLine}, false
	}
	for offset, number := 0, 1; offset < len(data); number++ {
		next := len(data)
		if n := bytes.IndexByte(data[offset:], '\n'); n >= 0 {
			next = offset + n + 1
		}
		line := data[offset:next]
		rest, isStart := marker(line, "---")
		_, isEnd := marker(line, "...")
		switch {
		case isEnd:
			flush(offset, next, number+1)
		case isStart:
			if open || current.first > 0 {
				flush(offset, offset, number)
			}
			open = true
			if !blank(rest) {
				current.first, current.bound = number, true
			} else {
				current.marker, current.markerEnd = offset-start, next-start
			}
		case current.first > 0 || blank(line):
		case !open && line[0] == '%':
			current.bound = true
		default:
			current.first = number
		}
		offset = next
	}
	flush(len(data), len(data), 0)
	return chunks
}

// marker returns what follows a document marker on its line, if the line begins with one.
func marker(line []byte, m string) (rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(line, []byte(m))
	if !ok || len(rest) > 0 && !bytes.ContainsRune([]byte(" \t\r\n"), rune(rest[0])) {
		return nil, false
	}
	return rest, true
}

// blank says whether a line holds nothing but white space and a comment.
func blank(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#'
}

// verbatim returns the document as it was written, without the marker before it. Nil if it cannot do without.
func (c chunk) verbatim() []byte {
	if c.bound {
		return nil
	}
	return append(bytes.Clone(c.text[:c.marker]), c.text[c.markerEnd:]...)
}
