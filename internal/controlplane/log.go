package controlplane

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// tailBytes is how much of a process's log an error shows.
const tailBytes = 4 << 10

// processLog is the file that a process writes its output to. Hand the process the File itself: package exec copies
// into any other writer through a pipe, and a process dies of that when this side is closed.
type processLog struct{ *os.File }

func newLog(path string) (processLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return processLog{}, fmt.Errorf("controlplane: %w", err)
	}
	return processLog{f}, nil
}

// tail is the end of the log under the process's name, for an error message.
func (l processLog) tail() string {
	name := filepath.Base(l.Name())
	content, err := os.ReadFile(l.Name())
	if err != nil {
		return fmt.Sprintf("%s: %v\n", name, err)
	}
	if cut := len(content) - tailBytes; cut > 0 {
		content = content[cut:]
		// Whole lines only.
		if _, rest, found := bytes.Cut(content, []byte("\n")); found {
			content = rest
		}
	}
	return fmt.Sprintf("end of %s:\n%s\n", name, content)
}
