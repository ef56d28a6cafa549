package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// DefaultHold is how long a supervisor waits to be deleted.
const DefaultHold = 5 * time.Minute

// Exit codes by which shells say that a program could not be started.
const (
	exitNotExecutable = 126
	exitNotFound      = 127

	exitFailed     = 1
	signalledExits = 128
)

// Options of Run.
type Options struct {
	// Command is the program and its arguments. Required.
	Command []string

	// Manager decides on idleness. Required.
	Manager *idle.Manager

	// Config is the Manager's.
	Config idle.Config

	// ExitCodeFile is where to leave the exit code; empty: nowhere, and nothing holds.
	ExitCodeFile string

	// Hold is how long to hold.
	Hold time.Duration

	Logger *slog.Logger
}

// Run runs the program and returns the code to exit with: the program's own, 128 and the signal's number if one killed it,
// lifecycle.ExitIdle if it was idle, 0 after SIGTERM or SIGINT. It takes over this process's signals and children.
func Run(options Options) int {
	// What the program leaves behind comes here and not to the Pod's pause process, which may be another user's.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		options.Logger.Warn("Orphans are not reaped here", "error", err)
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	defer signal.Stop(signals)
	s := &supervisor{Options: options, word: file(options.ExitCodeFile), signals: signals}
	if s.word != "" && s.word.saysIdle() {
		if options.Config.Enabled {
			return s.hold()
		}
		options.Logger.Info("An earlier run ended as idle, and idle shutdown is off: starting")
	}
	if s.word != "" {
		if err := s.word.remove(); err != nil {
			options.Logger.Warn("The exit code of an earlier run cannot be removed", "error", err)
		}
	}
	code := s.run()
	if s.word != "" {
		if err := s.word.write(code); err != nil {
			options.Logger.Warn("The sidecar may not learn how the agent ended", "exitCode", code, "error", err)
		}
	}
	return code
}

type supervisor struct {
	Options
	word    file
	signals chan os.Signal

	child    *os.Process
	terminal *terminal

	// asked says that SIGTERM or SIGINT came, idle that the agent was found idle before.
	asked, idle bool

	// ended says that the program has; code is what to exit with then.
	ended bool
	code  int

	stop stop
}

// hold waits until somebody deletes the Pod.
func (s *supervisor) hold() int {
	s.Manager.Stop()
	s.Logger.Info("The agent of this Pod ended because it was idle; waiting for the Pod to be deleted", "atMost", s.Hold.String())
	timeout := time.After(s.Hold)
	for {
		select {
		case sig := <-s.signals:
			if isStop(sig) {
				return 0
			}
			s.reap()
		case <-timeout:
			s.Logger.Warn("Nobody has deleted the Pod; the next start works again")
			if err := s.word.remove(); err != nil {
				s.Logger.Error("The exit code cannot be removed", "error", err)
			}
			return exitFailed
		}
	}
}

func (s *supervisor) run() int {
	code, err := s.start()
	if err != nil {
		s.Logger.Error("The agent cannot be started", "command", s.Command[0], "error", err)
		return code
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idleness := make(chan error, 1)
	go func() { idleness <- s.Manager.Run(ctx) }()
	for {
		select {
		case sig := <-s.signals:
			if sig == syscall.SIGCHLD {
				if s.reap() {
					return s.code
				}
				continue
			}
			s.forward(sig.(syscall.Signal))
		case err := <-idleness:
			if !errors.Is(err, idle.ErrIdle) || s.ended || s.asked {
				continue
			}
			s.idle = true
			s.Logger.Info("The agent is idle and is stopped", "grace", s.Config.Grace.String())
			s.terminate(syscall.SIGTERM)
		case <-s.stop.half:
			s.terminateRest()
		case <-s.stop.grace:
			s.stop.over = true
			s.killIfOver()
		case <-s.stop.gaveUp:
			s.Logger.Error("Processes of the agent cannot be killed")
			if !s.ended {
				s.code = s.exitCode(0)
			}
			return s.code
		}
	}
}

// start starts the program in a process group of its own, by which all of it can be told to stop.
func (s *supervisor) start() (code int, err error) {
	path, err := exec.LookPath(s.Command[0])
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return exitNotExecutable, err
		}
		return exitNotFound, err
	}
	s.child, err = os.StartProcess(path, s.Command, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return exitNotExecutable, err
	}
	if s.terminal = openTerminal(); s.terminal != nil {
		s.terminal.attach(s.child.Pid)
	}
	s.Logger.Info("The agent has started", "pid", s.child.Pid)
	return 0, nil
}

// reap collects children that ended, and acts on how the program ended if it is among them. It says whether it has and no process
// of the agent is left.
func (s *supervisor) reap() (over bool) {
	flags := syscall.WNOHANG
	if s.terminal != nil {
		flags |= syscall.WUNTRACED
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, flags, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return s.ended // orphans would be children of this process
		case err != nil || pid <= 0:
			s.killIfOver()
			if s.stop.grace != nil && !s.hasGroup() {
				s.terminateRest()
			}
			return false
		case s.child == nil || pid != s.child.Pid:
		case status.Stopped():
			s.stopped(status.StopSignal())
		default:
			s.programEnded(status)
		}
	}
}

// programEnded has what the program leaves behind stopped as well.
func (s *supervisor) programEnded(status syscall.WaitStatus) {
	s.ended, s.code = true, s.exitCode(status)
	s.Manager.Stop()
	if s.terminal != nil {
		s.terminal.detach()
	}
	if s.stop.sent != syscall.SIGTERM {
		s.terminate(syscall.SIGTERM)
	}
}

func (s *supervisor) stopped(sig syscall.Signal) {
	if s.stop.grace != nil {
		_ = syscall.Kill(-s.child.Pid, syscall.SIGCONT) // it is to end
		return
	}
	s.terminal.stopped(sig)
}

// forward hands a signal on: one to stop to the whole group, any other to the program. The runtime's own ones stay here.
func (s *supervisor) forward(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGURG || sig == syscall.SIGPIPE:
		return
	case isStop(sig):
		s.asked = true
		s.Manager.Stop()
		s.terminate(sig)
		return
	case sig == syscall.SIGCONT && s.terminal != nil:
		s.terminal.continued()
		return
	}
	if s.ended {
		return
	}
	if err := syscall.Kill(s.child.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.Logger.Warn("A signal was not delivered", "signal", sig.String(), "error", err)
	}
}

// exitCode is what to exit with. A program that says 42 itself while it may stop is idle; one that dies by a signal never is.
func (s *supervisor) exitCode(status syscall.WaitStatus) int {
	switch {
	case s.idle:
		return lifecycle.ExitIdle
	case s.asked:
		return 0
	case status.Signaled():
		return signalledExits + int(status.Signal())
	}
	return status.ExitStatus()
}

func isStop(sig os.Signal) bool { return sig == syscall.SIGTERM || sig == syscall.SIGINT }
