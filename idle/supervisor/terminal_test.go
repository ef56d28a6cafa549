package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// screen is a terminal with a program that has it as its controlling one.
type screen struct {
	*exec.Cmd
	t    *testing.T
	dir  string
	main *os.File

	mu    sync.Mutex
	shown strings.Builder
}

// onTerminal starts a command as the leader of a session with a terminal: as a container with "tty: true" does, or a shell's window.
func onTerminal(t *testing.T, dir string, command ...string) *screen {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal("no terminal: ", err)
	}
	main := os.NewFile(uintptr(fd), "ptmx")
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	side, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer side.Close()
	s := &screen{t: t, dir: dir, main: main, Cmd: exec.Command(command[0], command[1:]...)}
	s.Env = append(os.Environ(), "SUPERVISE_IN="+dir, "DIR="+dir, "SUPERVISOR="+os.Args[0], "PS1=ready:", "IDLE_GRACE_SECONDS=10")
	s.Stdin, s.Stdout, s.Stderr = side, side, side
	s.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := main.Read(buffer)
			s.mu.Lock()
			s.shown.Write(buffer[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = s.Process.Kill(); main.Close() })
	return s
}

// sees waits for something to be shown after what was seen last.
func (s *screen) sees(want string) {
	s.t.Helper()
	shown := ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		shown = s.shown.String()
		if _, rest, found := strings.Cut(shown, want); found {
			s.shown.Reset()
			s.shown.WriteString(rest)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
	s.t.Fatalf("%q was not shown, but:\n%s", want, shown)
}

// after types a line to the shell, and returns what is shown before the next prompt.
func (s *screen) after(line string) string {
	s.t.Helper()
	s.mu.Lock()
	begin := s.shown.Len()
	s.mu.Unlock()
	s.types(line + "; echo do''ne\n")
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		shown := s.shown.String()[begin:]
		s.mu.Unlock()
		if strings.Contains(shown, "done") {
			return shown
		}
	}
	s.t.Fatalf("the shell does not answer to %q", line)
	return ""
}

func (s *screen) types(text string) {
	s.t.Helper()
	if _, err := s.main.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end.
func (s *screen) ends(code int) {
	s.t.Helper()
	time.AfterFunc(30*time.Second, func() { _ = s.Process.Kill() })
	_ = s.Wait()
	if got := s.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d", got, code)
	}
}

// state waits until the agent, which has left its PID, is stopped or not.
func (s *screen) state(stopped bool) {
	s.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		pid, err := os.ReadFile(filepath.Join(s.dir, "pid"))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err == nil && strings.Contains(string(stat), ") T") == stopped {
			return
		}
	}
	s.t.Fatalf("the agent is stopped: %v", !stopped)
}

const reader = `echo $$ >$DIR/pid; echo asks; while read line; do echo "got $line"; [ "$line" = end ] && exit 7; done`

const (
	controlC = "\x03"
	controlZ = "\x1a"
)

// A container with a terminal: its first process is the session's leader.
func TestTerminal(t *testing.T) {
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		s := onTerminal(t, t.TempDir(), os.Args[0], "sh", "-c", reader)
		s.sees("asks")
		s.types("hello\n")
		s.sees("got hello")
		s.types("end\n")
		s.ends(7)
	})
	t.Run("nobody could continue it, so Ctrl-Z does not stop it", func(t *testing.T) {
		t.Parallel()
		s := onTerminal(t, t.TempDir(), os.Args[0], "sh", "-c", reader)
		s.sees("asks")
		s.types(controlZ)
		s.sees("^Z")
		s.types("hello\n")
		s.sees("got hello")
		s.types("end\n")
		s.ends(7)
	})
	t.Run("Ctrl-C is the agent's alone", func(t *testing.T) {
		t.Parallel()
		s := onTerminal(t, t.TempDir(), os.Args[0], "sh", "-c", `trap "echo interrupted" INT; `+strings.Replace(reader, "; while", "; read line; while", 1))
		s.sees("asks")
		s.types(controlC)
		s.sees("interrupted")
		s.types("hello\n")
		s.sees("got hello")
		s.types("end\n")
		s.ends(7)
	})
	t.Run("a stop reaches one that reads, and what it has started", func(t *testing.T) {
		t.Parallel()
		dir := agent(t, worker)
		s := onTerminal(t, dir, os.Args[0], "sh", "-c", `sh $DIR/agent & echo asks; read line`)
		s.sees("asks")
		(&run{t: t, dir: dir}).await("up")
		_ = s.Process.Signal(syscall.SIGTERM)
		s.ends(0)
		(&run{t: t, dir: dir}).await("saved")
		(&run{t: t, dir: dir}).expectGone()
	})
}

// A shell with job control on a terminal, of which the supervisor is a job.
func TestTerminalOfAShell(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err) // make and the tools need it, too
	}
	begin := func(t *testing.T, suffix string) *screen {
		t.Helper()
		s := onTerminal(t, t.TempDir(), bash, "--norc", "--noprofile", "-i")
		s.sees("ready:")
		script := filepath.Join(s.dir, "agent")
		if err := os.WriteFile(script, []byte(reader), 0o600); err != nil {
			t.Fatal(err)
		}
		s.types(strconv.Quote(os.Args[0]) + " sh " + script + suffix + "\n")
		return s
	}
	t.Run("stopped and continued", func(t *testing.T) {
		t.Parallel()
		s := begin(t, "")
		s.sees("asks")
		for range 2 {
			s.types(controlZ)
			s.sees("Stopped")
			s.state(true)
			s.sees("ready:")
			s.types("fg\n")
			s.state(false)
			s.types("hello\n")
			s.sees("got hello")
		}
		s.types("end\n")
		s.sees("got end")
		s.sees("ready:")
		s.types("echo code $?; exit 0\n")
		s.sees("code 7")
		s.ends(0)
	})
	t.Run("in a pipe", func(t *testing.T) {
		t.Parallel()
		s := begin(t, " | cat")
		s.sees("asks")
		s.types(controlZ)
		s.sees("Stopped")
		s.sees("ready:")
		s.types("fg\n")
		s.state(false)
		s.types("end\n")
		s.sees("got end")
		s.sees("ready:")
		s.types("exit 0\n")
		s.ends(0)
	})
	t.Run("started in the background", func(t *testing.T) {
		t.Parallel()
		s := begin(t, " &")
		s.sees("asks")
		s.state(true) // since it reads
		for jobs := ""; !strings.Contains(jobs, "Stopped"); jobs = s.after("jobs") {
			time.Sleep(50 * time.Millisecond)
		}
		s.types("fg\n")
		s.state(false)
		s.types("end\n")
		s.sees("got end")
		s.sees("ready:")
		s.types("exit 0\n")
		s.ends(0)
	})
}
