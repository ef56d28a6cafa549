package breaker

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxReason is how many characters a reason for opening the breaker by hand may have: it is repeated to every agent
// that waits.
const MaxReason = 200

// CheckReason says what is wrong with a reason for opening the breaker by hand; nil if nothing is.
func CheckReason(reason string) error {
	switch n := utf8.RuneCountInString(reason); {
	case strings.TrimSpace(reason) == "":
		return fmt.Errorf("reason %q is empty; say in a few words why nothing may be deleted", reason)
	case n > MaxReason:
		return fmt.Errorf("reason has %d characters; accepted are at most %d", n, MaxReason)
	case !utf8.ValidString(reason):
		return errors.New("reason is no valid UTF-8")
	}
	if i := strings.IndexFunc(reason, unicode.IsControl); i >= 0 {
		return fmt.Errorf("reason %q has a control character at byte %d; accepted is one line of text", reason, i)
	}
	return nil
}
