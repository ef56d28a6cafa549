package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the program, built once.
var program string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "lifecycle-manager-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "lifecycle-manager")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v: %s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// agent is a manager that runs a command, in a run directory of its own.
type agent struct {
	*exec.Cmd
	t      *testing.T
	runDir string
	log    bytes.Buffer
	ended  chan struct{}
}

func start(t *testing.T, env []string, flags []string, command ...string) *agent {
	t.Helper()
	a := &agent{t: t, runDir: t.TempDir(), ended: make(chan struct{})}
	a.Cmd = exec.Command(program, append(append([]string{"exec", "--run-dir", a.runDir}, flags...), append([]string{"--"}, command...)...)...)
	a.Env, a.Stderr = append(os.Environ(), env...), &a.log
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(a.ended); _ = a.Wait() }() // how it ended is asked for later
	t.Cleanup(func() { _ = a.Process.Kill() })
	return a
}

// expectEnd waits for the manager's end.
func (a *agent) expectEnd(code int) {
	a.t.Helper()
	select {
	case <-a.ended:
	case <-time.After(30 * time.Second):
		a.t.Fatal("the manager has not ended")
	}
	if got := a.ProcessState.ExitCode(); got != code {
		a.t.Errorf("exit code %d, want %d:\n%s", got, code, a.log.String())
	}
}

// says runs a command beside the agent, with the manager of its run directory.
func (a *agent) says(args ...string) (int, string) {
	a.t.Helper()
	return says(a.t, a.runDir, args...)
}

func says(t *testing.T, runDir string, args ...string) (int, string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "LIFECYCLE_RUN_DIR="+runDir)
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// served waits until the manager answers.
func (a *agent) served() {
	a.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if code, out := a.says("status"); code == 0 {
			return
		} else if time.Now().After(deadline) {
			a.t.Fatalf("the manager does not answer: %s", out)
		}
	}
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	a := start(t, nil, nil, "sleep", "60")
	a.served()
	for _, step := range []struct {
		args      []string
		has, lost string // in what status says afterwards
	}{
		{[]string{"activity", "--source", "shell-test"}, "last activity: shell-test", "kept alive by trigger"},
		{[]string{"trigger", "add", "cron", "--reason", "nightly"}, "kept alive by trigger cron (nightly)", "stops at"},
		{[]string{"trigger", "set", "mail"}, "kept alive by trigger mail", "cron"},
		{[]string{"lease", "job-1", "--ttl", "5m"}, "kept alive by lease job-1", "stops at"},
		{[]string{"trigger", "remove", "mail"}, "kept alive by lease job-1", "mail"},
		{[]string{"lease", "job-2", "--", "true"}, "kept alive by lease job-1", "job-2"},
		{[]string{"trigger", "remove", "job-1"}, "stops at", "job-1"},
		{[]string{"snooze", "20m"}, "kept alive by snooze", "job-1"},
	} {
		if code, out := a.says(step.args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", step.args, code, out)
		}
		if _, status := a.says("status"); !strings.Contains(status, step.has) || strings.Contains(status, step.lost) {
			t.Errorf("after %v the status has no %q, or it has %q:\n%s", step.args, step.has, step.lost, status)
		}
	}
	if code, out := a.says("status", "-o", "json"); code != 0 || !strings.Contains(out, `"state": "RUNNING"`) {
		t.Errorf("status -o json: %d: %s", code, out)
	}
	for want, args := range map[string][]string{
		`"with/slash" is not accepted`: {"trigger", "add", "with/slash"},
		"1s to 24h":                    {"lease", "long", "--ttl", "48h"},
	} {
		if code, out := a.says(args...); code != 1 || !strings.Contains(out, want) {
			t.Errorf("%v: exit code %d, want 1 and %q: %s", args, code, want, out)
		}
	}
	if err := a.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	a.expectEnd(0)
}

// TestOwners: a script's call changes nothing that another one holds, be it under the same id.
func TestOwners(t *testing.T) {
	t.Parallel()
	a := start(t, nil, nil, "sleep", "60")
	a.served()
	for _, args := range [][]string{
		{"trigger", "add", "inbox"},
		{"trigger", "add", "inbox", "mail", "--owner", "worker"},
		{"trigger", "set", "job", "--owner", "worker"},
		{"trigger", "remove", "inbox", "--owner", "worker"},
		{"lease", "report", "--ttl", "5m"},
		{"lease", "report", "--", "true"},
	} {
		if code, out := a.says(args...); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, out)
		}
	}
	_, status := a.says("status")
	for _, want := range []string{"by trigger inbox since", "by trigger job of worker since", "by lease report since"} {
		if !strings.Contains(status, want) {
			t.Errorf("the status has no %q:\n%s", want, status)
		}
	}
	if strings.Contains(status, "mail") || strings.Contains(status, "of lease-") {
		t.Errorf("the status has what was let go:\n%s", status)
	}
	if err := a.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	a.expectEnd(0)
}

func TestExec(t *testing.T) {
	t.Parallel()
	soon := []string{"IDLE_TIMEOUT_MINUTES=0.005", "IDLE_WARNING_SECONDS=0.1", "IDLE_CHECK_INTERVAL_SECONDS=0.05"}
	for name, tc := range map[string]struct {
		env     []string
		command []string
		code    int
		word    string
	}{
		"its own code":    {nil, []string{"sh", "-c", "exit 7"}, 7, "7"},
		"a signal":        {nil, []string{"sh", "-c", "kill -9 $$"}, 137, "137"},
		"not found":       {nil, []string{"/no/such/agent"}, 127, "127"},
		"idle":            {soon, []string{"sleep", "60"}, 42, "42"},
		"never idle":      {append(soon, "ENABLE_IDLE_SHUTDOWN=false"), []string{"sleep", "1"}, 0, "0"},
		"not understood":  {append(soon, "IDLE_GRACE_SECONDS=soon"), []string{"sleep", "1"}, 0, "0"},
		"enterprise user": {append(soon, "USER_TYPE=enterprise"), []string{"sleep", "1"}, 0, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := start(t, tc.env, nil, tc.command...)
			a.expectEnd(tc.code)
			word, err := os.ReadFile(filepath.Join(a.runDir, "exit_code"))
			if err != nil || strings.TrimSpace(string(word)) != tc.word {
				t.Errorf("exit_code holds %q, %v, want %s", word, err, tc.word)
			}
		})
	}
	// An agent that has no way to say that it works is taken to work.
	t.Run("no socket", func(t *testing.T) {
		t.Parallel()
		cmd := exec.Command(program, "exec", "--run-dir", filepath.Join(t.TempDir(), "none"), "--", "sleep", "1")
		cmd.Env = append(os.Environ(), soon...)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "idle shutdown is off") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	none := t.TempDir()
	for _, tc := range []struct {
		code int
		want string
		args []string
	}{
		{0, "Usage:", nil},
		{0, "Flags of exec:", []string{"exec", "--help"}},
		{0, "dev", []string{"version"}},
		{2, `"dance" is no command`, []string{"dance"}},
		{2, "accepted is exec [flags] -- COMMAND", []string{"exec", "sleep"}},
		{2, "say add, remove or set", []string{"trigger"}},
		{2, "which?", []string{"trigger", "add"}},
		{2, `snooze "soon"`, []string{"snooze", "soon"}},
		{2, "accepted are text and json", []string{"status", "-o", "yaml"}},
		{2, `unexpected argument "now"`, []string{"activity", "now"}},
		{2, "accepted is lease ID", []string{"lease"}},
		{1, filepath.Join(none, "lifecycle.sock"), []string{"activity"}},
	} {
		if code, out := says(t, none, tc.args...); code != tc.code || !strings.Contains(out, tc.want) {
			t.Errorf("%v: exit code %d, want %d and %q: %s", tc.args, code, tc.code, tc.want, out)
		}
	}
}

// What an agent and the command of a lease say reaches the manager of --run-dir, from wherever they are called.
func TestRunDirIsShared(t *testing.T) {
	said := filepath.Join(t.TempDir(), "said")
	const script = `"$PROGRAM" lease --run-dir "$DIR" work --ttl 1m -- sh -c 'cd / && "$PROGRAM" trigger add fromLease' && cd / && "$PROGRAM" status -o json > "$SAID.new" && mv "$SAID.new" "$SAID"; sleep 60`
	dir := t.TempDir()
	cmd := exec.Command(program, "exec", "--run-dir", filepath.Base(dir), "--", "sh", "-c", script)
	cmd.Dir = filepath.Dir(dir)
	cmd.Env = append(os.Environ(), "PROGRAM="+program, "DIR="+dir, "SAID="+said)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	var status []byte
	for range 200 {
		if status, _ = os.ReadFile(said); status != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if !strings.Contains(string(status), `"fromLease"`) {
		t.Errorf("the manager's status is %q:\n%s", status, log.String())
	}
}
