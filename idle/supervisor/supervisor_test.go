package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/dexorder/agent-lifecycle/idle"
)

// The test binary is the supervisor of a real program when it is told so.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SUPERVISE_IN"); dir != "" {
		config, err := idle.FromEnv(os.Getenv)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
		hold, _ := time.ParseDuration(os.Getenv("HOLD"))
		manager := idle.New(config)
		if os.Getenv("IDLE_WHEN_UP") != "" { // however slow the machine
			_ = manager.AddTrigger("starting", "")
			go func() {
				for _, err := os.Stat(filepath.Join(dir, "up")); err != nil; _, err = os.Stat(filepath.Join(dir, "up")) {
					time.Sleep(10 * time.Millisecond)
				}
				_ = manager.RemoveTrigger("starting")
			}()
		}
		os.Exit(Run(Options{
			Command: os.Args[1:], Manager: manager, Config: config, Hold: hold,
			ExitCodeFile: filepath.Join(dir, "exit_code"), Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		}))
	}
	os.Exit(m.Run())
}

// run is a supervisor with a shell script under it.
type run struct {
	*exec.Cmd
	t    *testing.T
	dir  string
	said log
}

// log may be read while it is written.
type log struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write implements io.Writer.
func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

// String implements fmt.Stringer.
func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func start(t *testing.T, dir, script string, env ...string) *run {
	t.Helper()
	r := &run{t: t, dir: dir, Cmd: exec.Command(os.Args[0], "sh", "-c", script)}
	r.Env = append(append(os.Environ(), "SUPERVISE_IN="+dir, "DIR="+dir), env...)
	r.Stdout, r.Stderr, r.WaitDelay = &r.said, &r.said, 10*time.Second // for what is left behind with the pipe
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Process.Kill() })
	return r
}

// await waits for a file that the script makes.
func (r *run) await(name string) string {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if data, err := os.ReadFile(filepath.Join(r.dir, name)); err == nil && len(data) > 0 {
			return strings.TrimSpace(string(data))
		}
	}
	r.t.Fatalf("there is no file %s; said:\n%s", name, &r.said)
	return ""
}

// says waits for something to be logged.
func (r *run) says(want string) {
	r.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(r.said.String(), want); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%q is not said, but:\n%s", want, &r.said)
		}
	}
}

// expect waits for the end and compares the code, and the word that is left.
func (r *run) expect(code int, word string) {
	r.t.Helper()
	_ = r.Wait()
	if got := r.ProcessState.ExitCode(); got != code {
		r.t.Errorf("exit code %d, want %d; said:\n%s", got, code, &r.said)
	}
	left, err := os.ReadFile(filepath.Join(r.dir, "exit_code"))
	if err != nil && word != "" || strings.TrimSpace(string(left)) != word {
		r.t.Errorf("left %q (%v), want %q", left, err, word)
	}
}

// soon makes an agent idle after a fraction of a second.
var soon = []string{"IDLE_TIMEOUT_MINUTES=0.01", "IDLE_WARNING_SECONDS=0", "IDLE_GRACE_SECONDS=0.3"}

func TestExitCodes(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		env    []string
		code   int
		word   string
	}{
		"done":                       {"exit 0", nil, 0, "0"},
		"a crash":                    {"exit 3", nil, 3, "3"},
		"killed":                     {"kill -9 $$", nil, 137, "137"},
		"a segmentation fault":       {"kill -SEGV $$", nil, 139, "139"},
		"its own 42":                 {"exit 42", nil, 42, "42"},
		"idle":                       {"exec sleep 60", soon, 42, "42"},
		"idle, and ends with grace":  {`trap "exit 7" TERM; while :; do sleep 0.02; done`, soon, 42, "42"},
		"idle, and has to be killed": {`trap "" TERM; while :; do sleep 0.02; done`, soon, 42, "42"},
		"idle, with idle shutdown off": {
			"sleep 1; exit 5", append([]string{"ENABLE_IDLE_SHUTDOWN=false"}, soon...), 5, "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start(t, t.TempDir(), tc.script, tc.env...).expect(tc.code, tc.word)
		})
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		signal syscall.Signal
		script string
		code   int
	}{
		"SIGTERM":                         {syscall.SIGTERM, `trap "echo got >$DIR/got; exit 9" TERM; echo up >$DIR/up; while :; do sleep 0.02; done`, 0},
		"SIGINT":                          {syscall.SIGINT, `trap "echo got >$DIR/got; exit 9" INT; echo up >$DIR/up; while :; do sleep 0.02; done`, 0},
		"SIGUSR1 is no stop":              {syscall.SIGUSR1, `trap "echo got >$DIR/got; exit 9" USR1; echo up >$DIR/up; while :; do sleep 0.02; done`, 9},
		"SIGHUP, which kills, is no stop": {syscall.SIGHUP, `echo got >$DIR/got; echo up >$DIR/up; exec sleep 60`, 129},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, t.TempDir(), tc.script)
			r.await("up")
			if err := r.Process.Signal(tc.signal); err != nil {
				t.Fatal(err)
			}
			r.expect(tc.code, strconv.Itoa(tc.code))
			r.await("got")
		})
	}
}

// What the agent leaves behind is reaped here, and is not taken for the agent.
func TestOrphans(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), `sh -c 'sh -c "sleep 0.2; exit 42" & echo $! >$DIR/orphan'; sleep 1; `+
		`cat /proc/$(cat $DIR/orphan)/stat >$DIR/zombie 2>/dev/null; exit 4`)
	r.expect(4, "4")
	if data, err := os.ReadFile(filepath.Join(r.dir, "zombie")); err == nil && len(data) > 0 {
		t.Errorf("the orphan was not reaped: %s", data)
	}
}

func TestHold(t *testing.T) {
	word := func(t *testing.T, code string) string {
		t.Helper()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "exit_code"), []byte(code+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	const script = `echo up >$DIR/up; exit 6`
	worked := func(t *testing.T, r *run, want bool) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(r.dir, "up")); (err == nil) != want {
			t.Errorf("the agent worked: %v, want %v; said:\n%s", err == nil, want, &r.said)
		}
	}
	t.Run("until it is deleted", func(t *testing.T) {
		t.Parallel()
		r := start(t, word(t, "42"), script, "HOLD=1m")
		r.says("waiting for the Pod to be deleted")
		if err := r.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		r.expect(0, "42")
		worked(t, r, false)
	})
	t.Run("until nobody came, and never ends with 42", func(t *testing.T) {
		t.Parallel()
		r := start(t, word(t, "42"), script, "HOLD=200ms")
		r.expect(1, "")
		worked(t, r, false)
	})
	t.Run("not where agents do not stop", func(t *testing.T) {
		t.Parallel()
		r := start(t, word(t, "42"), script, "HOLD=1m", "ENABLE_IDLE_SHUTDOWN=false")
		r.expect(6, "6")
		worked(t, r, true)
	})
	t.Run("not for another code", func(t *testing.T) {
		t.Parallel()
		r := start(t, word(t, "137"), script, "HOLD=1m")
		r.expect(6, "6")
		worked(t, r, true)
	})
}

func TestCannotStart(t *testing.T) {
	for name, tc := range map[string]struct {
		command string
		code    int
	}{"not found": {"no-such-program", 127}, "not executable": {"/etc/passwd", 126}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], tc.command)
			cmd.Env = append(os.Environ(), "SUPERVISE_IN="+dir)
			out, err := cmd.CombinedOutput()
			exit := new(exec.ExitError)
			if !errors.As(err, &exit) || exit.ExitCode() != tc.code || !bytes.Contains(out, []byte("cannot be started")) {
				t.Errorf("%v: %s; want exit code %d", err, out, tc.code)
			}
		})
	}
}
