package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
)

// attackVerb is the argument with which this program is the attacker.
const attackVerb = "attack"

// attackLoad is what the attacker does.
type attackLoad struct {
	Connections int
	Bodies      float64 // a second
	Cores       float64
}

// attackCounts are what came of it.
type attackCounts struct {
	Opened  int            // silent connections
	Sent    int            // hostile bodies
	Answers map[string]int // to the bodies, by HTTP status; "error" for none
	Cores   float64        // that were used
}

// attacker is a process of its own: what it uses of the machine is bounded, and it shares no memory or lock with who measures.
type attacker struct {
	cmd    *exec.Cmd
	stdout *strings.Builder

	mu    sync.Mutex
	stdin io.WriteCloser
}

func startAttacker(load attackLoad, addresses []string) (*attacker, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	a := &attacker{cmd: exec.Command(self, attackVerb), stdout: &strings.Builder{}}
	a.cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "GOMEMLIMIT=off")
	a.cmd.Stdout, a.cmd.Stderr = a.stdout, os.Stderr
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if a.stdin, err = a.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(a.stdin).Encode(load); err != nil {
		return nil, errors.Join(err, a.kill())
	}
	a.target(addresses)
	return a, nil
}

// target says which addresses there are now. An attacker that has ended says so when it is stopped.
func (a *attacker) target(addresses []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = json.NewEncoder(a.stdin).Encode(addresses)
}

// stop ends the attack and returns what came of it.
func (a *attacker) stop() (attackCounts, error) {
	a.mu.Lock()
	a.stdin.Close()
	a.mu.Unlock()
	if err := a.cmd.Wait(); err != nil {
		return attackCounts{}, fmt.Errorf("attacker: %w", err)
	}
	var counts attackCounts
	if err := json.Unmarshal([]byte(a.stdout.String()), &counts); err != nil {
		return attackCounts{}, fmt.Errorf("attacker: %w", err)
	}
	return counts, nil
}

func (a *attacker) kill() error {
	_ = a.cmd.Process.Kill()
	return a.cmd.Wait()
}
