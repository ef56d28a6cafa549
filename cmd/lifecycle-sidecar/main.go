// Lifecycle-sidecar runs beside an agent and asks for the deletion of the agent's Deployment when the agent ended because it
// was idle, with exit code 42. See package sidecar.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"github.com/dexorder/agent-lifecycle/lifecycle"
	"github.com/dexorder/agent-lifecycle/sidecar"
)

// version is set when the program is built.
var version = "dev"

const usage = `Runs beside an agent, and asks for the deletion of the agent's Deployment when the agent ended with exit code 42.

Usage: lifecycle-sidecar [run] [flags]   watch the agent of this Pod (the default)
       lifecycle-sidecar health          succeed if the sidecar of this Pod runs
       lifecycle-sidecar version

In a Pod it takes what it needs from the environment: NAMESPACE and DEPLOYMENT_NAME, KUBERNETES_SERVICE_HOST and
KUBERNETES_SERVICE_PORT. MAIN_CONTAINER_PID is a hint: a process to watch beside those that are found.

Flags of run:
`

func main() {
	err := command(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "lifecycle-sidecar:", err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "lifecycle-sidecar:", err)
		os.Exit(1)
	}
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func command(args []string, stdout, stderr io.Writer) error {
	verb := "run"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	switch verb {
	case "run":
		return run(args, stdout, stderr)
	case "health":
		return sidecar.Health("/proc")
	case "version":
		_, err := fmt.Fprintln(stdout, version)
		return err
	}
	return usageError{fmt.Errorf("%q is no command; known are run, health, version", verb)}
}

// memoryLimit is for all that the runtime has mapped, of which several megabytes are never touched.
const memoryLimit = 8 << 20

type flags struct {
	kubeconfig, runDir, exitStatus, terminationLog, level string
	dryRun, once                                          bool
}

func run(args []string, stdout, stderr io.Writer) error {
	f := &flags{}
	set := flag.NewFlagSet("lifecycle-sidecar run", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.exitStatus, "exit-status", "auto", "where to learn how the agent ended: pidfd (Linux 6.15), file, or auto")
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "reach the API server by this JSON file, to run the sidecar by hand;\nkubectl config view --raw --flatten -o json prints one")
	set.StringVar(&f.runDir, "run-dir", lifecycle.RunDir, "where the agent's lifecycle manager leaves its exit code")
	set.BoolVar(&f.dryRun, "dry-run", false, "ask for deletions that are judged and not carried out")
	set.BoolVar(&f.once, "once", false, "end with the first decision: 0 if the deletion was accepted, else 1")
	set.StringVar(&f.terminationLog, "termination-log", "/dev/termination-log", "where to write why the sidecar ended")
	set.StringVar(&f.level, "log-level", "info", "least level that is logged: debug, info, warn, error")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stdout, usage)
			set.SetOutput(stdout)
			set.PrintDefaults()
			return err
		}
		return usageError{err}
	}
	if set.NArg() > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", set.Arg(0))}
	}
	options, err := f.options(stderr)
	if err != nil {
		return usageError{err}
	}
	// By the clock the heap would be collected every two minutes, which wakes up all the threads for some kilobytes. What asking
	// takes, again and again, is bounded by the limit, which is well below the container's.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(memoryLimit)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	message, err := sidecar.Run(ctx, options)
	if err != nil {
		message = strings.TrimPrefix(message+"; "+err.Error(), "; ")
	}
	// Nobody reads it but people, and outside a Pod there is no such file.
	_ = os.WriteFile(f.terminationLog, []byte(message+"\n"), 0o600)
	return err
}

func (f *flags) options(stderr io.Writer) (sidecar.Options, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return sidecar.Options{}, fmt.Errorf("--log-level %q: accepted are debug, info, warn, error", f.level)
	}
	exitStatus, err := sidecar.ParseExitStatus(f.exitStatus)
	if err != nil {
		return sidecar.Options{}, fmt.Errorf("--exit-status: %w", err)
	}
	o := sidecar.Options{
		Namespace: os.Getenv(lifecycle.EnvNamespace), Deployment: os.Getenv(lifecycle.EnvDeploymentName),
		ExitCodeFile: filepath.Join(f.runDir, filepath.Base(lifecycle.ExitCodeFile)),
		ExitStatus:   exitStatus, DryRun: f.dryRun, Once: f.once,
		Logger: slog.New(slog.NewJSONHandler(stderr, &slog.HandlerOptions{Level: level})),
	}
	for name, value := range map[string]string{lifecycle.EnvNamespace: o.Namespace, lifecycle.EnvDeploymentName: o.Deployment} {
		if value == "" {
			return o, fmt.Errorf("%s is not set; accepted is the name that the downward API gives", name)
		}
	}
	if hint := os.Getenv(envMainPID); hint != "" {
		if o.MainPID, err = strconv.Atoi(hint); err != nil || o.MainPID < 1 {
			return o, fmt.Errorf("%s is %q; accepted is a process ID, or nothing", envMainPID, hint)
		}
		if o.MainPID == 1 {
			o.MainPID = 0 // pause's, in a shared PID namespace
		}
	}
	if f.kubeconfig != "" {
		o.Server, err = sidecar.Kubeconfig(f.kubeconfig)
	} else {
		o.Server, err = sidecar.InCluster(os.Getenv)
	}
	return o, err
}

// envMainPID names a process to watch beside those that are found.
const envMainPID = "MAIN_CONTAINER_PID"
