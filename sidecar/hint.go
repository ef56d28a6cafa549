package sidecar

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// maxHint bounds what is read of the file, in bytes.
const maxHint = 16

// idleHint says whether the file holds the idle exit code. The agent can put anything there, so the file is opened without
// following links or waiting, and only a short regular file is read. What cannot be read is no evidence.
func idleHint(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxHint {
		return false
	}
	data := make([]byte, maxHint)
	n, err := file.ReadAt(data, 0)
	if n == 0 && err != nil {
		return false
	}
	return strings.TrimSpace(string(data[:n])) == idleCode
}

// idleCode is lifecycle.ExitIdle as the file holds it.
const idleCode = "42"

var _ = [1]struct{}{}[lifecycle.ExitIdle-42] // they are the same
