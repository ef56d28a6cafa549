package webhook

import (
	"fmt"
	"net/http"
	"strings"
)

// Check is one thing that readiness depends on.
type Check struct {
	Name string

	// Run returns nil when all is well, else what is not.
	Run func() error

	// Notice makes the check one that is shown and does not make the server unready: it is wrong, and people should
	// know, and yet requests are better answered than not.
	Notice bool
}

// healthz says that the process is alive. It depends on nothing: a restart would repair nothing that a check could find.
func healthz(w http.ResponseWriter, _ *http.Request) {
	_, _ = fmt.Fprintln(w, "ok")
}

// readyz runs the checks. What failed is always listed, with ?verbose everything is.
func readyz(checks []Check) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var all, failed strings.Builder
		ready := true
		for _, c := range checks {
			err := c.Run()
			switch {
			case err == nil:
				fmt.Fprintf(&all, "[+]%s ok\n", c.Name)
				continue
			case c.Notice:
				fmt.Fprintf(&all, "[!]%s: %s\n", c.Name, oneLine(err))
				continue
			}
			ready = false
			line := fmt.Sprintf("[-]%s: %s\n", c.Name, oneLine(err))
			all.WriteString(line)
			failed.WriteString(line)
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		body, verdict := failed.String(), "readyz check passed\n"
		if r.URL.Query().Has("verbose") {
			body = all.String()
		}
		if !ready {
			verdict = "readyz check failed\n"
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = fmt.Fprint(w, body, verdict)
	}
}

func oneLine(err error) string {
	return strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}
