package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running program whose use of the machine is read.
type process int

// cpu returns what the process has used in all its threads, user and system. /proc/PID/stat would say so in steps of
// ten milliseconds only.
func (p process) cpu() (time.Duration, error) {
	// As clock_getcpuclockid(3) makes the id of a process's clock.
	const schedulerClock = 2
	var used unix.Timespec
	if err := unix.ClockGettime(^int32(p)<<3|schedulerClock, &used); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", p, err)
	}
	return time.Duration(used.Nano()), nil
}

// memory is what a process holds, in bytes.
type memory struct {
	// Resident pages are in memory; private ones are mapped by nobody else, program text included where it is the only
	// process of its program; anonymous ones have no file behind them, so that they are in memory for good.
	resident, private, anonymous int64
}

func (p process) memory() (memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", p))
	if err != nil {
		return memory{}, err
	}
	defer f.Close()
	var m memory
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			continue // the heading
		}
		switch name {
		case "Rss":
			m.resident += kib << 10
		case "Anonymous":
			m.anonymous += kib << 10
		case "Private_Clean", "Private_Dirty":
			m.private += kib << 10
		}
	}
	return m, lines.Err()
}

// program is a process that was started here.
type program struct {
	*exec.Cmd
	log *os.File
}

// start runs a program that lives no longer than this one. What it writes goes to a file below dir.
func start(dir, path string, args ...string) (*program, error) {
	log, err := os.CreateTemp(dir, "*.log")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		log.Close()
		return nil, err
	}
	return &program{cmd, log}, nil
}

func (p *program) stop() {
	_ = p.Process.Kill()
	_ = p.Wait() // it says that it was killed
	p.log.Close()
}
