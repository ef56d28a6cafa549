package controlplane

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// guardScript ends what this program leaves behind. Its standard input is a pipe that only this program holds open,
// so the read ends when this program does: by itself, by a panic, a test's time limit or a kill. A Ctrl-C reaches
// the whole process group and must not end the guard before its work is done.
const guardScript = `trap '' INT TERM HUP
read -r _
for pid in "$1"/*.pid; do
  [ ! -e "$pid" ] || kill -9 "$(cat "$pid")" 2>/dev/null
done
rm -rf "$1"`

// guard is a process that outlives this one, just long enough to clean up after it.
type guard struct {
	dir string
	cmd *exec.Cmd
	// alive is the pipe's other end.
	alive io.Closer
}

// startGuard watches over the processes whose ids stand in dir, and over dir itself.
func startGuard(dir string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "controlplane-guard", dir)
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("controlplane: guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("controlplane: guard: %w", err)
	}
	return &guard{dir: dir, cmd: cmd, alive: alive}, nil
}

// wrap returns a program that records its process id for the guard and then becomes the given one. envtest starts
// programs itself and tells nobody their ids.
func (g *guard) wrap(program string) (string, error) {
	name := filepath.Base(program)
	script := fmt.Sprintf("#!/bin/sh\necho $$ >%s\nexec %s \"$@\"\n",
		shellQuote(filepath.Join(g.dir, name+".pid")), shellQuote(program))
	path := filepath.Join(g.dir, name)
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		return "", fmt.Errorf("controlplane: %w", err)
	}
	return path, nil
}

// release lets the guard do its work now and waits for it. allEnded says that the processes are known to be gone: then
// their ids are withdrawn first, since they may be somebody else's by now.
func (g *guard) release(allEnded bool) error {
	var errs []error
	if allEnded {
		ids, err := filepath.Glob(filepath.Join(g.dir, "*.pid"))
		errs = append(errs, err)
		for _, id := range ids {
			errs = append(errs, os.Remove(id))
		}
	}
	return errors.Join(append(errs, g.alive.Close(), g.cmd.Wait())...)
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
