package timing

import (
	"os/exec"
	"syscall"
	"time"
)

// Used is what a process and those that it has started have used when it has ended.
type Used struct {
	Wall, CPU time.Duration

	// Peak is the most memory that one of them had, in bytes.
	Peak int64
}

// Run runs a command to its end. What it has used is told as well where it ends with an error.
func Run(cmd *exec.Cmd) (Used, error) {
	began := time.Now()
	err := cmd.Run()
	u := Used{Wall: time.Since(began)}
	if state := cmd.ProcessState; state != nil {
		u.CPU = state.UserTime() + state.SystemTime()
		if usage, is := state.SysUsage().(*syscall.Rusage); is {
			u.Peak = usage.Maxrss << 10
		}
	}
	return u, err
}
