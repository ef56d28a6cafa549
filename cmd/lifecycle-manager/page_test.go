package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// page is what tells people how to write an agent.
const page = "../../docs/agents.md"

const fence = "```"

// pagePrograms returns the blocks of the page that are whole programs, by the file name that stands beside their language.
func pagePrograms(t *testing.T) map[string]string {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	programs, name := map[string]string{}, ""
	for line := range strings.Lines(string(content)) {
		if opening, ok := strings.CutPrefix(line, fence); ok {
			_, name, _ = strings.Cut(strings.TrimSpace(opening), " ")
		} else if name != "" {
			programs[name] += line
		}
	}
	return programs
}

// TestPage runs each program of the page until it ends as idle, and sees before what it says of itself.
func TestPage(t *testing.T) {
	programs, run := pagePrograms(t), map[string]bool{}
	for _, tt := range []struct {
		program string
		alone   bool     // there is no manager but its own
		says    []string // in what status says, in this order
	}{
		{program: "agent.sh", says: []string{"lease report", "trigger inbox", "last activity: report"}},
		{program: "curl.sh", says: []string{"trigger inbox", "lease report", "last activity: report"}},
		{program: "agent.py", says: []string{"trigger inbox", "last activity: answer"}},
		{program: "agent.py", alone: true},
		{program: "agent.go", says: []string{"trigger inbox", "lease report"}},
		{program: "own.go", alone: true},
	} {
		name := tt.program
		if tt.alone {
			name += " alone"
		}
		source, found := programs[tt.program]
		if !found {
			t.Errorf("%s has no program %s", page, tt.program)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := prepare(t, tt.program, source)
			begun := time.Now()
			if tt.alone {
				runAlone(t, command)
			} else {
				runUnder(t, command, tt.says)
			}
			if worked := time.Since(begun); worked < time.Second {
				t.Errorf("it was taken for idle after %s, while it worked", worked)
			}
		})
		run[tt.program] = true
	}
	for name := range programs {
		if !run[name] {
			t.Errorf("%s: the program %s is not run by this test", page, name)
		}
	}
}

// hurried is what the webhook sets, with short times. The timeout is still longer than an interpreter takes to start on a busy machine.
var hurried = []string{
	"ENABLE_IDLE_SHUTDOWN=true", "USER_TYPE=free", "IDLE_TIMEOUT_MINUTES=0.1",
	"IDLE_CHECK_INTERVAL_SECONDS=0.1", "IDLE_WARNING_SECONDS=0.2", "IDLE_GRACE_SECONDS=5",
}

// prepared is a program of the page that can be run outside of a Pod.
type prepared struct {
	command []string
	runDir  string
	env     []string
}

// prepare writes the program down, with a run directory of its own, and builds it where that is needed.
func prepare(t *testing.T, name, source string) prepared {
	t.Helper()
	dir, err := os.MkdirTemp("", "page") // a socket's path may not be long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(source, "/var/run/agent", dir)), 0o700); err != nil {
		t.Fatal(err)
	}
	p := prepared{command: []string{file}, runDir: dir}
	switch {
	case name == "curl.sh":
		lookPath(t, "curl")
	case filepath.Ext(name) == ".py":
		p.command = []string{lookPath(t, "python3"), file}
	case filepath.Ext(name) == ".go":
		p.command = []string{filepath.Join(dir, "agent")}
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", p.command[0], file).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", name, err, out)
		}
	}
	client, err := filepath.Abs("../../clients/python")
	if err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), hurried...)
	p.env = append(p.env, "LIFECYCLE_RUN_DIR="+dir, "PYTHONPATH="+client, "PYTHONDONTWRITEBYTECODE=1",
		"PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	return p
}

// lookPath finds what not every machine has.
func lookPath(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("there is no " + name)
	}
	return path
}

// runUnder runs it under the program that this package is.
func runUnder(t *testing.T, p prepared, want []string) {
	t.Helper()
	cmd := exec.Command(program, append([]string{"exec", "--run-dir", p.runDir, "--"}, p.command...)...)
	cmd.Env = p.env
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	seen := ""
	for deadline := time.After(30 * time.Second); ; {
		if len(want) > 0 {
			if _, seen = says(t, p.runDir, "status"); strings.Contains(seen, want[0]) {
				want = want[1:]
			}
		}
		select {
		case <-ended:
			if code := cmd.ProcessState.ExitCode(); code != 42 || len(want) > 0 {
				t.Errorf("exit code %d, want 42; did not say %q; said last:\n%s\nlog:\n%s", code, want, seen, log)
			}
			expectWord(t, p.runDir)
			return
		case <-deadline:
			t.Fatalf("it has not ended; did not say %q; said last:\n%s", want, seen)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func runAlone(t *testing.T, p prepared) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.command[0], p.command[1:]...)
	cmd.Env = p.env
	time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 42 {
		t.Errorf("%s, want 42:\n%s", cmd.ProcessState, out)
	}
	expectWord(t, p.runDir)
}

func expectWord(t *testing.T, runDir string) {
	t.Helper()
	if word, err := os.ReadFile(filepath.Join(runDir, "exit_code")); err != nil || strings.TrimSpace(string(word)) != "42" {
		t.Errorf("exit_code holds %q, want 42: %v", word, err)
	}
}
