package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseRate reads how many agents may be restarted in a time, such as 10/m: s, m and h are seconds, minutes and hours. It returns the
// least time between two.
func ParseRate(s string) (time.Duration, error) {
	count, unit, ok := strings.Cut(s, "/")
	n, err := strconv.ParseInt(count, 10, 32)
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if !ok || err != nil || n < 1 || per == 0 {
		return 0, fmt.Errorf("rate %q: accepted is a number and a time, such as 1/s, 10/m or 100/h", s)
	}
	return per / time.Duration(n), nil
}
