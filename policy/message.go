package policy

import (
	"fmt"
	"strings"

	"github.com/dexorder/agent-lifecycle/internal/terminal"
)

// maxMessage bounds a message in bytes: the API server passes it on into events, logs and terminals.
const maxMessage = 4096

// String returns the violation on one line.
func (v Violation) String() string {
	line := v.Rule + ": "
	if v.Tolerated != "" {
		line += "tolerated, since " + v.Tolerated + ": "
	}
	if v.Field != "" {
		line += v.Field + ": "
	}
	return line + v.Message
}

// Message says why the request was refused: a line for every violation, as many as fit.
func (v Verdict) Message() string {
	if v.Allowed() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "refused by policy, profile %q", v.Profile)
	if v.Prefix != "" {
		fmt.Fprintf(&b, ", whose prefix %q covers namespace %q", v.Prefix, v.Namespace)
	}
	b.WriteByte(':')
	for i, violation := range v.Denials {
		line := truncate(violation.String())
		if i > 0 && b.Len()+len(line) > maxMessage {
			fmt.Fprintf(&b, "\n- and %d more", len(v.Denials)-i)
			break
		}
		b.WriteString("\n- " + line)
	}
	return b.String()
}

// maxLine bounds one violation in bytes.
const maxLine = 1024

func truncate(line string) string {
	if len(line) <= maxLine {
		return line
	}
	return strings.ToValidUTF8(line[:maxLine], "") + "…"
}

// isValue says what an optional field is.
func isValue[T any](field *T) string {
	if field == nil {
		return "is not set"
	}
	return fmt.Sprintf("is %v", *field)
}

// isLabel says what a label is.
func isLabel(labels map[string]string, key string) string {
	value, ok := labels[key]
	if !ok {
		return "is missing"
	}
	return fmt.Sprintf("is %q", value)
}

// Printable escapes what a text from elsewhere may hold that does not belong on a line of a terminal.
func Printable(s string) string { return terminal.Printable(s) }

// quoted lists names for a message.
func quoted(names []string) string {
	q := make([]string, len(names))
	for i, name := range names {
		q[i] = fmt.Sprintf("%q", name)
	}
	return strings.Join(q, ", ")
}
