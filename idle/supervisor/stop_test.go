package supervisor

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// worker is an agent that saves what it has when it is told to stop, and takes a moment for it.
const worker = `trap "sleep 0.5; echo yes >$DIR/saved; exit 0" TERM; echo $$ >$DIR/pid; echo up >$DIR/up; while :; do sleep 0.02; done`

// stubborn is one that does not stop.
const stubborn = `trap "" TERM INT HUP; echo $$ >$DIR/pid; echo up >$DIR/up; while :; do sleep 0.02; done`

// wrappers are ways in which an agent is started, with the name of a script that is the agent.
var wrappers = map[string]string{
	"itself":                        `exec sh $DIR/agent`,
	"a shell around it":             `sh $DIR/agent; true`,
	"two shells around it":          `sh -c "sh $DIR/agent; true"; true`,
	"a background job":              `sh $DIR/agent & wait`,
	"a double fork":                 `(sh $DIR/agent &); sleep 60`,
	"a daemon":                      `(setsid sh $DIR/agent &); sleep 60`,
	"a daemon whose parent trapped": `(setsid sh $DIR/agent &); trap "exit 3" TERM; while :; do sleep 0.02; done`,
	"a wrapper that hands it on":    `sh $DIR/agent & trap "kill -TERM $!" TERM; wait; wait`,
}

// agent writes the agent's script.
func agent(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// expectGone says if the agent has been left behind.
func (r *run) expectGone() {
	r.t.Helper()
	pid, err := strconv.Atoi(r.await("pid"))
	if err != nil {
		r.t.Fatal(err)
	}
	if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z") {
		r.t.Errorf("the agent is left behind: %s", stat)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// The agent gets its grace however it is started, whoever stops it.
func TestGraceOfAll(t *testing.T) {
	t.Parallel()
	for name, wrapper := range wrappers {
		for cause, code := range map[string]int{"idle": 42, "SIGTERM": 0, "SIGINT": 0} {
			if cause == "SIGINT" && name == "itself" {
				continue // the agent itself has no trap for it
			}
			t.Run(name+", "+cause, func(t *testing.T) {
				t.Parallel()
				env := []string{"IDLE_GRACE_SECONDS=20", "IDLE_WARNING_SECONDS=0"}
				if cause == "idle" {
					env = append(env, "IDLE_TIMEOUT_MINUTES=0.002", "IDLE_WHEN_UP=yes")
				}
				r := start(t, agent(t, worker), wrapper, env...)
				r.await("up")
				switch cause {
				case "SIGTERM":
					_ = r.Process.Signal(syscall.SIGTERM)
				case "SIGINT":
					_ = r.Process.Signal(syscall.SIGINT)
				}
				r.expect(code, strconv.Itoa(code))
				if cause != "SIGINT" { // of which a shell's background job hears nothing, and the rest dies
					if saved, err := os.ReadFile(filepath.Join(r.dir, "saved")); err != nil || len(saved) == 0 {
						t.Errorf("the agent had no grace: %v; said:\n%s", err, &r.said)
					}
				}
				r.expectGone()
			})
		}
	}
}

// What does not stop in its grace is killed, and the code is the same.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, wrapper := range wrappers {
		for cause, code := range map[string]int{"idle": 42, "SIGTERM": 0} {
			if cause == "SIGTERM" && (name == "itself" || strings.Contains(name, "hands it on") || strings.Contains(name, "around")) {
				continue // the program itself is waited for when somebody else stops it
			}
			t.Run(name+", "+cause, func(t *testing.T) {
				t.Parallel()
				env := []string{"IDLE_GRACE_SECONDS=0.5", "IDLE_WARNING_SECONDS=0"}
				if cause == "idle" {
					env = append(env, "IDLE_TIMEOUT_MINUTES=0.002", "IDLE_WHEN_UP=yes")
				}
				r := start(t, agent(t, stubborn), wrapper, env...)
				r.await("up")
				if cause == "SIGTERM" {
					_ = r.Process.Signal(syscall.SIGTERM)
				}
				r.expect(code, strconv.Itoa(code))
				r.expectGone()
			})
		}
	}
}

// A program that ends by itself keeps its code; what it leaves behind has the grace, too.
func TestProgramEndsBeforeTheRest(t *testing.T) {
	t.Parallel()
	const leave = `(setsid sh $DIR/agent &); while [ ! -e $DIR/up ]; do sleep 0.02; done; exit 3`
	r := start(t, agent(t, worker), leave, "IDLE_GRACE_SECONDS=20")
	r.expect(3, "3")
	r.await("saved")
	r.expectGone()

	r = start(t, agent(t, stubborn), leave, "IDLE_GRACE_SECONDS=0.3")
	r.expect(3, "3")
	r.expectGone()
}

// The program itself is waited for longer than the grace when somebody else stops it: the kubelet has a time of its own.
func TestStopFromOutsideWaits(t *testing.T) {
	t.Parallel()
	r := start(t, t.TempDir(), `trap "sleep 1; echo yes >$DIR/saved; exit 0" TERM; echo up >$DIR/up; while :; do sleep 0.02; done`,
		"IDLE_GRACE_SECONDS=0.2")
	r.await("up")
	_ = r.Process.Signal(syscall.SIGTERM)
	r.expect(0, "0")
	r.await("saved")
}

// An agent that is stopped (SIGSTOP) gets its grace as well.
func TestStoppedAgentEnds(t *testing.T) {
	t.Parallel()
	r := start(t, agent(t, worker), `sh $DIR/agent; true`, "IDLE_GRACE_SECONDS=20")
	pid, err := strconv.Atoi(r.await("pid"))
	if err != nil {
		t.Fatal(err)
	}
	r.await("up")
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	time.Sleep(50 * time.Millisecond)
	_ = r.Process.Signal(syscall.SIGTERM)
	r.expect(0, "0")
	r.await("saved")
}
