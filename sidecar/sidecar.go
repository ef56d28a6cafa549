package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Run watches the agent and asks for the deletion of its Deployment when it ended with 42, until ctx ends. Then it finishes
// the request that is under way, starts none, and returns as soon as the agent has gone too: a sidecar that lingers costs its
// Pod the whole grace period. It returns what it has seen and done, in a sentence for people.
func Run(ctx context.Context, options Options) (summary string, err error) {
	if err := options.complete(); err != nil {
		return "", err
	}
	runtime.GOMAXPROCS(1)
	// The agent must not find the token through /proc/PID/root.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return "", fmt.Errorf("make the process undumpable: %w", err)
	}
	table, err := newProcessTable(options.ProcDir)
	if err != nil {
		return "", err
	}
	info, err := tellsStatus(options.ExitStatus)
	if err != nil {
		return "", err
	}
	s := newSidecar(options, table, info)
	options.Logger.InfoContext(ctx, "Watching the agent", "namespace", options.Namespace, "deployment", options.Deployment,
		"exitStatus", map[bool]ExitStatus{true: FromPidfd, false: FromFile}[info])
	err = s.run(ctx)
	return s.summary(), err
}

// tellsStatus says whether exits are learned from the kernel.
func tellsStatus(e ExitStatus) (bool, error) {
	if e == FromFile {
		return false, nil
	}
	if kernelTells() {
		return true, nil
	}
	if e == FromPidfd {
		return false, errors.New("this kernel does not tell how a process ended: that takes Linux 6.15; use exit status \"auto\" or \"file\"")
	}
	return false, nil
}

// sidecar is one run.
type sidecar struct {
	Options
	*watcher

	// deletion says how the deletion under way ended; asking is whether there is one.
	deletion chan outcome
	asking   bool

	// renew tells the deletion under way that there is a new exit.
	renew chan struct{}

	// lastEnd and lastDeletion are what summary tells of.
	lastEnd      *end
	lastDeletion *outcome
}

func newSidecar(options Options, table *processTable, info bool) *sidecar {
	hint := func() bool { return idleHint(options.ExitCodeFile) }
	return &sidecar{
		Options: options, deletion: make(chan outcome, 1), watcher: newWatcher(table, info, hint, options.Logger),
	}
}

// outcome of a deletion.
type outcome struct {
	next     next
	message  string
	attempts int
	took     time.Duration
}

func (s *sidecar) run(ctx context.Context) error {
	if s.MainPID > 0 {
		if st, err := s.table.stat(fmt.Sprint(s.MainPID)); err == nil {
			s.watch(ctx, process{s.MainPID, st.start})
		}
	}
	s.scan(ctx)
	s.lookBack(ctx)
	p := pace{eager: eagerAtStart}
	timer := time.NewTimer(p.after(s.none()))
	defer timer.Stop()
	stopping := ctx.Done()
	for {
		if ctx.Err() != nil && s.none() && !s.asking {
			return nil
		}
		select {
		case e := <-s.ends:
			s.remove(e)
			s.onEnd(ctx, e)
			p = pace{eager: eagerAfterEnd}
			if s.scan(ctx) {
				p.eager = 0
			}
			timer.Reset(p.after(s.none()))
		case <-timer.C:
			if s.scan(ctx) {
				p.eager = min(p.eager, eagerAtStart)
			}
			timer.Reset(p.after(s.none()))
		case o := <-s.deletion:
			s.asking, s.lastDeletion = false, &o
			if s.Once {
				return o.err()
			}
			s.askAnew(ctx, o)
		case <-stopping:
			stopping = nil
			s.Logger.Info("Stopping", "agentRuns", !s.none(), "asking", s.asking)
		}
	}
}

// lookBack is about a sidecar that was itself started again: what happened meanwhile, nobody has told it. The server knows.
func (s *sidecar) lookBack(ctx context.Context) {
	if idleHint(s.ExitCodeFile) {
		s.Logger.InfoContext(ctx, "An earlier run of the agent left exit code 42")
		s.ask(ctx)
		return
	}
	if age, err := s.table.age(); err == nil && age > lateStart && s.none() {
		s.Logger.InfoContext(ctx, "The Pod is old and the agent does not run; the server knows whether it was idle", "age", age.String())
		s.ask(ctx)
	}
}

func (s *sidecar) onEnd(ctx context.Context, e end) {
	s.lastEnd = &e
	idle, how := s.isIdle(e)
	attrs := []any{slog.Int("pid", e.pid), slog.String("how", how), slog.Bool("idle", idle), slog.Time("at", e.at)}
	if e.known {
		attrs = append(attrs, slog.Int("exitCode", e.code), slog.Int("signal", e.signal))
	}
	s.Logger.InfoContext(ctx, "Agent ended", attrs...)
	if idle {
		s.ask(ctx)
	}
}

// ask starts a deletion, or gives the one under way new patience. After SIGTERM nothing is started.
func (s *sidecar) ask(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	if s.asking {
		select {
		case s.renew <- struct{}{}:
		default:
		}
		return
	}
	s.asking, s.renew = true, make(chan struct{}, 1)
	renew := s.renew
	go func() { s.deletion <- s.delete(ctx, renew) }()
}

// askAnew asks for an exit that came while an earlier one was being refused: that answer was not about it.
func (s *sidecar) askAnew(ctx context.Context, o outcome) {
	select {
	case <-s.renew:
		if o.next != done {
			s.ask(ctx)
		}
	default:
	}
}

// delete asks until there is an answer or ctx ends. The request under way outlives ctx: its answer is waited for.
func (s *sidecar) delete(ctx context.Context, renew <-chan struct{}) outcome {
	start := time.Now()
	var waiting time.Time // since when the server says "not yet", and nothing else
	for attempt := 1; ; attempt++ {
		r := s.Server.deleteDeployment(context.WithoutCancel(ctx), s.Namespace, s.Deployment, s.DryRun)
		n := decide(r)
		slow := false
		switch {
		case n != unproven:
			waiting = time.Time{} // who was away could not say more
		case waiting.IsZero():
			waiting = time.Now()
		case time.Since(waiting) > s.ProofPatience:
			n, r.message = refused, "the exit was not proven in "+s.ProofPatience.String()+": "+r.message
		default:
			slow = time.Since(waiting) > eagerProof
		}
		o := outcome{n, r.message, attempt, time.Since(start)}
		if n == done || n == refused {
			o.log(s.Logger, r)
			return o
		}
		pause := backoff(attempt, r, jitter)
		if slow {
			pause += slowBackoff
		}
		s.Logger.InfoContext(ctx, "Asking again", "code", r.code, "message", r.message, "attempt", attempt, "pause", pause.String())
		select {
		case <-ctx.Done():
			return o
		case <-renew:
			waiting, attempt = time.Time{}, 0
		case <-time.After(pause):
		}
	}
}

func (o outcome) log(logger *slog.Logger, r reply) {
	attrs := []any{slog.Int("code", r.code), slog.Int("attempts", o.attempts), slog.Int64("tookMs", o.took.Milliseconds()),
		slog.String("message", o.message)}
	if o.next == done {
		logger.Info("Deletion accepted", attrs...)
		return
	}
	logger.Warn("Deletion refused", attrs...)
}

// err is nil for a deletion that was accepted.
func (o outcome) err() error {
	if o.next == done {
		return nil
	}
	return fmt.Errorf("not deleted after %d attempts: %s", o.attempts, o.message)
}
