package sidecar

import (
	"context"
	"log/slog"
	"time"

	"github.com/dexorder/agent-lifecycle/lifecycle"
)

// watcher knows the processes that were started from outside the Pod, and tells when one ends.
type watcher struct {
	table *processTable
	info  bool
	hint  func() bool
	log   *slog.Logger

	watched map[process]*pidfd
	ends    chan end
}

func newWatcher(table *processTable, info bool, hint func() bool, log *slog.Logger) *watcher {
	return &watcher{table: table, info: info, hint: hint, log: log, watched: map[process]*pidfd{}, ends: make(chan end, 16)}
}

// scan watches what it does not watch yet.
func (w *watcher) scan(ctx context.Context) {
	found, err := w.table.mains()
	if err != nil {
		w.log.WarnContext(ctx, "The processes of the Pod cannot be read", "error", err)
		return
	}
	for _, p := range found {
		w.watch(ctx, p)
	}
}

func (w *watcher) watch(ctx context.Context, p process) {
	if w.watched[p] != nil {
		return
	}
	f, err := openPidfd(p, w.table, w.info)
	if isGone(err) {
		return
	}
	if err != nil {
		w.log.WarnContext(ctx, "A process cannot be watched", "pid", p.pid, "error", err)
		return
	}
	w.watched[p] = f
	w.log.DebugContext(ctx, "Watching", "pid", p.pid)
	go func() {
		if e, err := f.wait(); err == nil {
			w.ends <- e
		}
	}()
}

// remove forgets a process that has ended.
func (w *watcher) remove(e end) {
	if f := w.watched[e.process]; f != nil {
		f.file.Close()
		delete(w.watched, e.process)
	}
}

func (w *watcher) none() bool { return len(w.watched) == 0 }

// isIdle says whether an end asks for the deletion, and by what that is known.
func (w *watcher) isIdle(e end) (idle bool, how string) {
	if w.info {
		return e.known && e.signal == 0 && e.code == lifecycle.ExitIdle, "pidfd"
	}
	return w.hint(), "file"
}

// pace is how long until the next scan: soon after there was a change, ever more rarely while there is no agent, and hardly
// ever while there is one.
type pace struct{ next time.Duration }

func (p *pace) after(scanned bool, none bool) time.Duration {
	switch {
	case !none:
		p.next = 0
		return rescanIdle
	case !scanned || p.next == 0:
		p.next = firstRescan
	default:
		p.next = min(2*p.next, lastRescan)
	}
	return p.next
}
