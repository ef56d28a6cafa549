package webhook

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// pollPolicy finds what no event tells, such as a change below a symlink that leads out of the directory.
	pollPolicy = 30 * time.Second

	// settlePolicy lets the events of one replacement come in before the file is read.
	settlePolicy = 50 * time.Millisecond
)

// Run follows the file until ctx ends. It watches the directory: the kubelet replaces the file of a ConfigMap by
// renaming a symlink beside it, of which a watch on the file itself would learn nothing, or once only.
func (f *PolicyFile) Run(ctx context.Context) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the policy file: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(f.path)); err != nil {
		return fmt.Errorf("watch the policy file's directory: %w", err)
	}
	f.Reload() // what happened between the first reading and the watch
	poll := time.NewTicker(pollPolicy)
	defer poll.Stop()
	settled := time.NewTimer(0)
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-watcher.Events:
			if !open {
				return fmt.Errorf("watch the policy file: %w", fsnotify.ErrClosed)
			}
			settled.Reset(settlePolicy)
		case err := <-watcher.Errors:
			f.log.WarnContext(ctx, "The watch of the policy file lost events; the file is read again", "error", err)
			settled.Reset(settlePolicy)
		case <-settled.C:
			f.Reload()
		case <-poll.C:
			f.Reload()
		}
	}
}
