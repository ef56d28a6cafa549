package supervisor

import (
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal of the session. The agent, whose process group is its own, reads from it and gets its
// signals as if nobody stood between: while this process's group has the terminal's foreground, the agent's group does.
type terminal struct {
	fd    int
	agent int  // its process group
	held  bool // it was stopped, and not continued from here
}

// openTerminal returns nil where the session has no terminal.
func openTerminal() *terminal {
	if fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0); err == nil {
		return &terminal{fd: fd}
	}
	for _, fd := range []int{unix.Stdin, unix.Stdout, unix.Stderr} {
		if _, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP); err == nil {
			return &terminal{fd: fd}
		}
	}
	return nil
}

// attach hands the terminal to an agent that has just started, if it is this process's.
func (t *terminal) attach(agent int) {
	t.agent = agent
	// Else changing the foreground from the background, and logging with "stty tostop", would stop this process. Ignored
	// signals are inherited, so this is not done before the agent has started.
	signal.Ignore(unix.SIGTTOU)
	if t.has(unix.Getpgrp()) {
		t.give(agent)
	}
}

// detach takes the terminal back from the agent.
func (t *terminal) detach() {
	if t.has(t.agent) {
		t.give(unix.Getpgrp())
	}
}

// stopped is called when the agent was stopped by the signal. As long as the shell that this process is a job of, if it is one,
// has it stopped, it stays; otherwise it goes on where the kernel would not have stopped it: alone in its session.
func (t *terminal) stopped(sig syscall.Signal) {
	t.held = true
	switch {
	case (sig == unix.SIGTTIN || sig == unix.SIGTTOU) && t.has(t.agent):
		// It asked before it had the terminal.
	case isJob():
		t.detach()
		stopJob()
	case sig == unix.SIGSTOP:
		return
	}
	t.resume()
}

// continued is called when this process was continued. An agent that works needs no signal: it could undo a stop that is on its way.
func (t *terminal) continued() {
	if t.held {
		t.resume()
	} else if t.has(unix.Getpgrp()) {
		t.give(t.agent)
	}
}

// resume lets the agent go on, in the foreground if this process's group has it.
func (t *terminal) resume() {
	if t.has(unix.Getpgrp()) || !isJob() {
		t.give(t.agent)
	}
	t.held = false
	_ = unix.Kill(-t.agent, unix.SIGCONT)
}

func (t *terminal) has(group int) bool {
	foreground, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	return err == nil && foreground == group
}

func (t *terminal) give(group int) { _ = unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group) }

// isJob says whether somebody is there to continue this process's group: a process of the group has its parent in another group
// of the same session. A group without one is orphaned, and the kernel does not stop it for a terminal either.
func isJob() bool {
	group := unix.Getpgrp()
	session, err := unix.Getsid(0)
	if err != nil {
		return false
	}
	for _, p := range processes() {
		if p.group != group || p.parent == 0 { // whose parent is outside of the PID namespace
			continue
		}
		of, groupErr := unix.Getpgid(p.parent)
		in, sessionErr := unix.Getsid(p.parent)
		if groupErr == nil && sessionErr == nil && of != group && in == session {
			return true
		}
	}
	return false
}

// stopJob stops the job that this process belongs to, such as both ends of a pipe. It returns when this process was continued.
func stopJob() {
	for _, p := range processes() {
		if p.group == unix.Getpgrp() && p.pid != unix.Getpid() {
			_ = unix.Kill(p.pid, unix.SIGTSTP) // it may have ended
		}
	}
	// A signal to the thread that sends it has its effect before the call returns.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
}
