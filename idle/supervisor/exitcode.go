package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// file is the word that a supervisor leaves. An empty one is none.
type file string

// saysIdle says whether an earlier run ended with 42.
func (f file) saysIdle() bool {
	data, err := os.ReadFile(string(f))
	return err == nil && strings.TrimSpace(string(data)) == strconv.Itoa(lifecycle.ExitIdle)
}

// remove takes the word back.
func (f file) remove() error {
	if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write leaves a code. Whoever reads the file sees all of it or nothing.
func (f file) write(code int) error {
	next, err := os.CreateTemp(filepath.Dir(string(f)), ".exit_code-")
	if err != nil {
		return fmt.Errorf("leave the exit code: %w", err)
	}
	_, err = fmt.Fprintln(next, code)
	// The sidecar runs as another user.
	err = errors.Join(err, next.Chmod(0o644), next.Sync(), next.Close())
	if err == nil {
		err = os.Rename(next.Name(), string(f))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("leave the exit code: %w", err), os.Remove(next.Name()))
	}
	return nil
}
