package supervisor

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// killTimeout is how long to wait for processes that were killed.
const killTimeout = 2 * time.Second

// stop is the state of stopping the agent's processes. The program's process group is told at once. Processes that have left the
// group, such as daemons, serve it perhaps: they are told when no process of the group is left, or after half of the grace.
// What is left when the grace is over is killed; but the program itself, when it is stopped from outside, is waited for as
// long as it takes: whoever stops it has a grace of his own.
type stop struct {
	sent        syscall.Signal // to the group
	half, grace <-chan time.Time
	over        bool // the grace
	gaveUp      <-chan time.Time
	told        map[int]bool // processes outside of the group
}

// terminate begins the stop, or tells the group once more.
func (s *supervisor) terminate(sig syscall.Signal) {
	if s.stop.grace == nil {
		s.stop.half, s.stop.grace = time.After(s.Config.Grace/2), time.After(s.Config.Grace)
	}
	s.stop.sent = sig
	s.signalGroup(sig)
	s.signalGroup(syscall.SIGCONT) // what is stopped could not end
}

// terminateRest tells the agent's processes outside of the group, once each.
func (s *supervisor) terminateRest() {
	if s.stop.told == nil {
		s.stop.told = map[int]bool{}
	}
	for _, p := range descendants(processes(), os.Getpid()) {
		if p.group == s.child.Pid || s.stop.told[p.pid] {
			continue
		}
		s.stop.told[p.pid] = true
		s.Logger.Info("A process that the agent leaves behind is stopped", "pid", p.pid)
		_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may have ended
		_ = syscall.Kill(p.pid, syscall.SIGCONT)
	}
}

// killIfOver kills what is left after the grace.
func (s *supervisor) killIfOver() {
	if !s.stop.over || !s.idle && !s.ended {
		return
	}
	if s.stop.gaveUp == nil {
		s.Logger.Warn("The agent has not stopped in time and is killed", "grace", s.Config.Grace.String())
		s.stop.gaveUp = time.After(killTimeout)
	}
	s.signalGroup(syscall.SIGKILL)
	for _, p := range descendants(processes(), os.Getpid()) {
		_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have ended
	}
}

func (s *supervisor) signalGroup(sig syscall.Signal) {
	if err := syscall.Kill(-s.child.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		s.Logger.Warn("A signal was not delivered", "signal", sig.String(), "error", err)
	}
}

// hasGroup says whether a process of the group is left.
func (s *supervisor) hasGroup() bool { return !errors.Is(syscall.Kill(-s.child.Pid, 0), syscall.ESRCH) }
