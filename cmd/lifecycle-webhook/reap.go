package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	clientcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/dexorder/agent-lifecycle/internal/program"
	"github.com/dexorder/agent-lifecycle/reaper"
	"github.com/dexorder/agent-lifecycle/webhook"
)

// gcPercent is how far the heap of reap may grow between two collections, as GOGC says it, which wins.
const gcPercent = 50

// reapFlags are what reap is told on the command line.
type reapFlags struct {
	policy       string
	healthListen string
	kubeconfig   string
	namespace    string
	once         bool
	output       string
	timeout      time.Duration
	reaping      reapingFlags
	logs         program.Log
}

// Define implements program.CommandLine.
func (f *reapFlags) Define(set *flag.FlagSet) {
	set.StringVar(&f.policy, "policy", "", "policy `file`, a LifecyclePolicy; followed while the reaper runs; required")
	set.StringVar(&f.healthListen, "health-listen", ":8080", "`address` of /healthz, /readyz and /metrics, plain HTTP; not with --once")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: the Pod's own account")
	set.StringVar(&f.namespace, "namespace", f.namespace, "`namespace` of the system")
	set.BoolVar(&f.once, "once", false, "make one pass and end: exit code 0 if it was good or the circuit breaker held it, 1 if it failed, 3 if the cap kept it from deleting")
	set.BoolVar(&f.reaping.dryRun, "dry-run", false, "write nothing, and say what would be deleted")
	set.StringVar(&f.output, "o", "text", "`format` of what --once prints: text or json")
	set.DurationVar(&f.timeout, "timeout", 10*time.Minute, "how long --once may take")
	f.reaping.nats.Define(set)
	f.logs.Define(set)
}

// Check implements program.CommandLine.
func (f *reapFlags) Check() []error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if f.policy == "" {
		wrong("--policy is required")
	}
	if f.namespace == "" {
		wrong("--namespace must not be empty")
	}
	if f.output != "text" && f.output != "json" {
		wrong("-o %q: there are text and json", f.output)
	}
	if f.timeout <= 0 {
		wrong("--timeout %s: must be positive", f.timeout)
	}
	errs = append(errs, f.reaping.nats.Check()...)
	return append(errs, f.logs.Check()...)
}

// reapCommand runs the reaper by itself: until a signal to stop, or for one pass.
func reapCommand(args []string, stdout, stderr io.Writer) error {
	f := &reapFlags{namespace: ownNamespace()}
	if err := program.Parse(programName, "reap --policy FILE [--once] [flags]", f, args, stdout, stderr); err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// What a large cluster holds is remembered for good, and nobody waits for an answer: here memory counts more than time.
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop) // from then on signals do what they do by default
	return reap(ctx, f, f.logs.NewLogger(stderr), stdout)
}

func reap(ctx context.Context, f *reapFlags, log *slog.Logger, stdout io.Writer) error {
	config, err := program.RESTConfig(f.kubeconfig, userAgent())
	if err != nil {
		return err
	}
	core, err := clientcorev1.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	registry := prometheus.NewRegistry()
	policies, err := webhook.LoadPolicyFile(f.policy, webhook.NewMetrics(registry, program.Version(version)), log)
	if err != nil {
		return err
	}
	r, parts, err := newReaper(&f.reaping, reaperParts{
		config: config, core: core, namespace: f.namespace, policies: policies,
		breaker: newBreaker(core, f.namespace, policies, registry, log), registry: registry, log: log,
	})
	if err != nil {
		return err
	}
	if f.once {
		return program.Run(ctx, func(ctx context.Context) error { return reapOnce(ctx, f, r, stdout) }, parts...)
	}
	health, err := net.Listen("tcp", f.healthListen)
	if err != nil {
		return fmt.Errorf("--health-listen: %w", err)
	}
	log.Info("Starting", "version", program.Version(version), "policy", f.policy)
	return program.Run(ctx, r.Run, append(parts, policies, program.Health{Listener: health, Gatherer: registry})...)
}

// reapOnce makes one pass and prints what came of it.
func reapOnce(ctx context.Context, f *reapFlags, r *reaper.Reaper, stdout io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("not done after --timeout %s", f.timeout))
	defer cancel()
	report, err := r.Once(ctx)
	if report != nil {
		if perr := printReport(stdout, f.output, report); perr != nil {
			return errors.Join(err, perr)
		}
	}
	switch {
	case err != nil:
		return err
	case report.Failed():
		return errors.New("the pass failed; what is wrong is in its report")
	case report.CapExceeded():
		return errCap
	}
	return nil
}

func printReport(w io.Writer, format string, report *reaper.Report) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(report)
	}
	for i := range report.Reapers {
		result := &report.Reapers[i]
		fmt.Fprintf(w, "%-10s  mode %s, %d examined, %d to go, %d reaped", result.Reaper, result.Mode, result.Examined, result.Candidates, result.Reaped)
		if result.Error != "" {
			fmt.Fprintf(w, "; FAILED: %s", result.Error)
		}
		fmt.Fprintln(w)
		for _, d := range result.Decisions {
			name := d.Name
			if d.Namespace != "" {
				name = d.Namespace + "/" + d.Name
			}
			fmt.Fprintf(w, "  %s %s: %s: %s\n", d.Kind, name, d.Verdict, d.Reason)
		}
	}
	return nil
}
