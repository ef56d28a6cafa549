package workload

import (
	"strings"
	"time"
)

// ParseDeprovisioned reads lifecycle.AnnotationDeprovisioned, which is "TIME WHO". marked is false where there is no
// such annotation. A time that cannot be read is zero, and a name that is not there is "somebody".
func ParseDeprovisioned(value string) (since time.Time, by string, marked bool) {
	if value == "" {
		return time.Time{}, "", false
	}
	at, by, _ := strings.Cut(value, " ")
	since, err := time.Parse(time.RFC3339, at)
	if err != nil {
		since = time.Time{}
	}
	if by == "" {
		by = "somebody"
	}
	return since.UTC(), by, true
}
