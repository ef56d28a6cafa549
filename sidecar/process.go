package sidecar

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pausePID is the process that holds a Pod's shared PID namespace.
const pausePID = 1

// process is one that was started from outside the Pod: the main one of a container, or an exec session.
type process struct {
	pid int

	// start is when it was started, in clock ticks since boot. With the PID it tells it from a successor.
	start uint64
}

// processTable reads /proc. It is not for concurrent use.
type processTable struct {
	dir string

	// buffer holds what is being read, and is used again: what every look left behind would never be collected, or would take
	// a collector that wakes the process up.
	buffer []byte

	// own is the cgroup of the sidecar itself, pause that of the Pod's sandbox.
	own, pause string
}

var errNotShared = errors.New("the sidecar is process 1: the Pod does not share its process namespace; set spec.shareProcessNamespace")

func newProcessTable(dir string) (*processTable, error) {
	if os.Getpid() == pausePID {
		return nil, errNotShared
	}
	t := &processTable{dir: dir, buffer: make([]byte, 4<<10)}
	var err error
	if t.own, err = t.cgroup("self"); err != nil {
		return nil, err
	}
	// Unreadable where the runtime hides it; then nothing is taken for the sandbox but process 1 itself.
	t.pause, _ = t.cgroup(strconv.Itoa(pausePID))
	return t, nil
}

// mains returns the processes without a parent in the Pod, but the sandbox's and the sidecar's own. Processes that end
// meanwhile are left out.
func (t *processTable) mains() ([]process, error) {
	dir, err := os.Open(t.dir)
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("look for processes: %w", err)
	}
	var found []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == pausePID || pid == os.Getpid() {
			continue
		}
		s, err := t.stat(name)
		if err != nil || s.parent != 0 || s.zombie || s.kernel {
			continue
		}
		cgroup, err := t.cgroup(name)
		if err != nil || cgroup == t.own || cgroup == t.pause {
			continue
		}
		found = append(found, process{pid, s.start})
	}
	return found, nil
}

type stat struct {
	parent int
	start  uint64
	zombie bool

	// kernel is a thread of the kernel, which has no parent either where the host's processes are seen.
	kernel bool
}

// stat reads the few fields that are needed. The name in parentheses may hold anything, so they are counted from its end.
func (t *processTable) stat(pid string) (stat, error) {
	data, err := t.read(pid, "stat")
	if err != nil {
		return stat{}, err
	}
	const (
		state, parent, flags, start = 0, 1, 6, 19

		kernelThread = 0x00200000 // PF_KTHREAD
	)
	var fields [start + 1][]byte
	i, n := bytes.LastIndexByte(data, ')'), 0
	for field := range bytes.FieldsSeq(data[i+1:]) {
		if fields[n] = field; n == start {
			break
		}
		n++
	}
	if i < 0 || n < start {
		return stat{}, fmt.Errorf("%s/stat: %d fields", pid, n)
	}
	ppid, err1 := strconv.Atoi(string(fields[parent]))
	ticks, err2 := strconv.ParseUint(string(fields[start]), 10, 64)
	bits, err3 := strconv.ParseUint(string(fields[flags]), 10, 64)
	dead := fields[state][0] == 'Z' || fields[state][0] == 'X'
	return stat{ppid, ticks, dead, bits&kernelThread != 0}, errors.Join(err1, err2, err3)
}

// cgroup is where a process belongs, as seen from here: by the unified hierarchy, or all lines of the older ones.
func (t *processTable) cgroup(pid string) (string, error) {
	data, err := t.read(pid, "cgroup")
	if err != nil {
		return "", err
	}
	lines := slices.Collect(strings.Lines(string(data)))
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "0::") }); i >= 0 && len(lines) == 1 {
		return lines[i], nil
	}
	return string(data), nil
}

// read reads the beginning of a file, which is all that is needed. What it returns holds until the next call.
func (t *processTable) read(pid, file string) ([]byte, error) {
	path := t.dir + "/" + pid + "/" + file
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, t.buffer)
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return t.buffer[:n], nil
}

// age is how long the Pod's sandbox has been there.
func (t *processTable) age() (time.Duration, error) {
	s, err := t.stat(strconv.Itoa(pausePID))
	if err != nil {
		return 0, err
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, err
	}
	const ticksPerSecond = 100 // USER_HZ, part of the kernel's interface
	return time.Duration(now.Nano()) - time.Duration(s.start)*(time.Second/ticksPerSecond), nil
}

// isGone says whether an error means that a process is not there any more.
func isGone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}
