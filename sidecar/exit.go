package sidecar

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// end is how a process ended.
type end struct {
	process

	// known says that the kernel told. Otherwise the rest is empty.
	known bool

	// code is the exit code, signal what killed it.
	code, signal int

	at time.Time
}

// pidfd watches one process. It sleeps in the netpoller until the process ends.
type pidfd struct {
	process
	file *os.File
	info bool
}

// openPidfd opens a process that was found in the table. info says that the kernel can tell how it ended.
func openPidfd(p process, table *processTable, info bool) (*pidfd, error) {
	fd, err := unix.PidfdOpen(p.pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", p.pid, err)
	}
	f := &pidfd{p, os.NewFile(uintptr(fd), "pidfd"), info}
	// The PID may have been taken by another one since.
	if s, err := table.stat(fmt.Sprint(p.pid)); err != nil || s.start != p.start {
		return nil, errors.Join(unix.ESRCH, f.file.Close())
	}
	return f, nil
}

// reapPause is how long to wait for the process to be reaped before looking again. It is a net: reaping wakes up as well.
const reapPause = 5 * time.Millisecond

// maxReap bounds the wait for somebody to reap it.
const maxReap = 2 * time.Second

// wait returns when the process has ended. An error means that the pidfd was closed.
func (f *pidfd) wait() (end, error) {
	conn, err := f.file.SyscallConn()
	if err != nil {
		return end{}, err
	}
	if err := conn.Read(func(fd uintptr) bool { return ended(int(fd)) }); err != nil {
		return end{}, err
	}
	e := end{process: f.process, at: time.Now()}
	if !f.info {
		return e, nil
	}
	// It is a zombie now; how it ended is told once its parent has reaped it.
	for limit := time.Now().Add(maxReap); time.Now().Before(limit); time.Sleep(reapPause) {
		var status unix.WaitStatus
		if err := conn.Control(func(fd uintptr) { status, e.known = exitInfo(int(fd)) }); err != nil {
			return end{}, err
		}
		if !e.known {
			continue
		}
		if status.Signaled() {
			e.signal = int(status.Signal())
		} else {
			e.code = status.ExitStatus()
		}
		break
	}
	return e, nil
}

func ended(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0
}

func exitInfo(fd int) (unix.WaitStatus, bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.Exit_code), true
}

// kernelTells says whether the kernel can tell how a process ended that is no child: PIDFD_GET_INFO came with Linux 6.13,
// the exit status in it with 6.15. A kernel that has it says so when asked about a living process without failing.
func kernelTells() bool {
	fd, err := unix.PidfdOpen(os.Getpid(), unix.PIDFD_NONBLOCK)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_PID | unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil {
		return false
	}
	var uname unix.Utsname
	if err := unix.Uname(&uname); err != nil {
		return false
	}
	return atLeast(unix.ByteSliceToString(uname.Release[:]), 6, 15)
}

// atLeast compares the beginning of a kernel's release, such as 6.18.44-generic.
func atLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(release, "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
