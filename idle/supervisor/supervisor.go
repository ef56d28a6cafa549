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

	child *os.Process

	// asked says that SIGTERM or SIGINT came.
	asked bool
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
			s.reap(sig)
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
	var kill <-chan time.Time
	stoppedIdle := false
	for {
		select {
		case sig := <-s.signals:
			if status, ended := s.reap(sig); ended {
				return s.code(status, stoppedIdle)
			}
			s.forward(sig)
		case err := <-idleness:
			if !errors.Is(err, idle.ErrIdle) {
				continue
			}
			if stoppedIdle = !s.asked; stoppedIdle {
				s.Logger.Info("The agent is idle and is stopped", "grace", s.Config.Grace.String())
				s.signal(syscall.SIGTERM)
				kill = time.After(s.Config.Grace)
			}
		case <-kill:
			s.Logger.Warn("The agent has not stopped in time and is killed")
			s.killGroup()
		}
	}
}

// start starts the program in a process group of its own, by which all of it can be killed.
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
	s.Logger.Info("The agent has started", "pid", s.child.Pid)
	return 0, nil
}

// reap collects children that ended, and says how the agent ended if it is among them.
func (s *supervisor) reap(sig os.Signal) (status syscall.WaitStatus, ended bool) {
	if sig != syscall.SIGCHLD {
		return 0, false
	}
	for {
		var got syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &got, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return status, ended
		}
		if s.child != nil && pid == s.child.Pid {
			status, ended = got, true
		}
	}
}

// forward hands a signal on. The runtime's own ones stay here.
func (s *supervisor) forward(sig os.Signal) {
	switch sig {
	case syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE:
		return
	case syscall.SIGTERM, syscall.SIGINT:
		s.asked = true
		s.Manager.Stop()
	}
	s.signal(sig.(syscall.Signal))
}

func (s *supervisor) signal(sig syscall.Signal) {
	if err := syscall.Kill(s.child.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.Logger.Warn("A signal was not delivered", "signal", sig.String(), "error", err)
	}
}

func (s *supervisor) killGroup() {
	if err := syscall.Kill(-s.child.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.Logger.Error("The agent cannot be killed", "error", err)
	}
}

// code is what to exit with. A program that says 42 itself while it may stop is idle; one that dies by a signal never is.
func (s *supervisor) code(status syscall.WaitStatus, stoppedIdle bool) int {
	switch {
	case stoppedIdle:
		return lifecycle.ExitIdle
	case s.asked:
		return 0
	case status.Signaled():
		return signalledExits + int(status.Signal())
	}
	return status.ExitStatus()
}

func isStop(sig os.Signal) bool { return sig == syscall.SIGTERM || sig == syscall.SIGINT }
