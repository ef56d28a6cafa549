package fleet

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/dexorder/agent-lifecycle/internal/terminal"
)

// NewJSONWriter writes one JSON object for programs, with all workloads in it.
func NewJSONWriter(w io.Writer, basis Basis) Writer { return &jsonWriter{w: w, basis: basis} }

type jsonWriter struct {
	w       io.Writer
	basis   Basis
	started bool
	added   []Addition
}

// begin writes what stands before the first workload.
func (j *jsonWriter) begin() error {
	basis, err := json.Marshal(j.basis)
	if err != nil {
		return err
	}
	j.started = true
	_, err = fmt.Fprintf(j.w, "{\n\"basis\": %s,\n\"workloads\": [", basis)
	return err
}

// Report implements Writer.
func (j *jsonWriter) Report(r *Report) error {
	separator := ","
	if !j.started {
		separator = ""
		if err := j.begin(); err != nil {
			return err
		}
	}
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(j.w, "%s\n  %s", separator, terminal.PrintableJSON(line))
	return err
}

// Add implements Writer.
func (j *jsonWriter) Add(a Addition) error {
	j.added = append(j.added, a)
	return nil
}

// End implements Writer.
func (j *jsonWriter) End(s Summary) error {
	if !j.started {
		if err := j.begin(); err != nil {
			return err
		}
	}
	summary, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(j.w, "\n],\n\"summary\": %s", summary); err != nil {
		return err
	}
	for _, a := range j.added {
		value, err := json.Marshal(a.Value)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(j.w, ",\n%q: %s", a.Key, terminal.PrintableJSON(value)); err != nil {
			return err
		}
	}
	_, err = io.WriteString(j.w, "\n}\n")
	return err
}
