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

// scan watches what it does not watch yet, and says whether there was something.
func (w *watcher) scan(ctx context.Context) (found bool) {
	mains, err := w.table.mains()
	if err != nil {
		w.log.WarnContext(ctx, "The processes of the Pod cannot be read", "error", err)
		return false
	}
	before := len(w.watched)
	for _, p := range mains {
		w.watch(ctx, p)
	}
	return len(w.watched) > before
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
	// Where nobody has reaped the process in time the kernel has not told, as if it could not.
	if w.info && e.known {
		return e.signal == 0 && e.code == lifecycle.ExitIdle, "pidfd"
	}
	return w.hint(), "file"
}

// pace is how long until the next scan: ever more rarely while the agent is waited for, and hardly ever once it runs. That
// something runs does not say that the agent does: it may be an exec session or another container.
type pace struct {
	next time.Duration

	// eager is for how long to look often, whatever runs.
	eager time.Duration
}

func (p *pace) after(none bool) time.Duration {
	if p.settled(none) {
		p.next = min(max(firstSettled, 2*p.next), lastSettled)
		return p.next
	}
	p.next = min(max(firstRescan, 2*p.next), lastRescan)
	p.eager -= p.next
	return p.next
}

func (p *pace) settled(none bool) bool { return !none && p.eager <= 0 }
