package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dexorder/agent-lifecycle/bench/timing"
)

// execute runs a program to its end. What it says goes to a file beside name.
func execute(ctx context.Context, name string, env []string, program string, args ...string) (timing.Used, error) {
	out, err := os.Create(name + ".log")
	if err != nil {
		return timing.Used{}, err
	}
	defer out.Close()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	u, err := timing.Run(cmd)
	if err != nil {
		return u, fmt.Errorf("%s: %w; see %s.log", program, err, name)
	}
	return u, nil
}

// loop is a reaper that runs on.
type loop struct {
	cmd    *exec.Cmd
	health string
	log    *os.File
	exited chan struct{}
	err    error
}

// startLoop starts the program's reaper, that says what it does in a file.
func startLoop(o *options, name, kubeconfig, policy, health string) (*loop, error) {
	log, err := os.Create(name + ".log")
	if err != nil {
		return nil, err
	}
	l := &loop{health: health, log: log, exited: make(chan struct{})}
	l.cmd = exec.Command(o.program, "reap", "--kubeconfig", kubeconfig, "--policy", policy, "--namespace", systemNamespace, "--health-listen", health)
	l.cmd.Stdout, l.cmd.Stderr = log, log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		l.err = l.cmd.Wait()
		close(l.exited)
	}()
	return l, nil
}

// stop returns an error if it did not end well.
func (l *loop) stop() error {
	defer l.log.Close()
	_ = l.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-l.exited:
		return l.err
	case <-time.After(30 * time.Second):
		_ = l.cmd.Process.Kill()
		<-l.exited
		return fmt.Errorf("the reaper did not stop within 30s; see %s", l.log.Name())
	}
}

func (l *loop) metrics(ctx context.Context) (samples, error) {
	select {
	case <-l.exited:
		return nil, fmt.Errorf("the reaper ended: %w; see %s", l.err, l.log.Name())
	default:
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.health+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, nil // it does not listen yet
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return readSamples(text), err
}

// memory is what it holds now, and the most that it has held, in bytes.
func (l *loop) memory() (now, peak int64, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", l.cmd.Process.Pid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kib, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, " kB")), 10, 64)
		switch name {
		case "VmRSS":
			now = kib << 10
		case "VmHWM":
			peak = kib << 10
		}
	}
	return now, peak, lines.Err()
}
