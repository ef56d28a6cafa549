// Lifecycle-manager runs an agent and stops it when it is idle, with exit code 42; its other commands speak to the one that
// runs. See package idle.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dexorder/agent-lifecycle/idle"
	"github.com/dexorder/agent-lifecycle/internal/terminal"
)

// version is set when the program is built.
var version = "dev"

const usage = `Runs an agent and stops it when it is idle; tells the manager that runs what the agent does.

Usage:
  lifecycle-manager exec [flags] -- COMMAND...   run an agent
  lifecycle-manager activity [--source NAME]     the agent has just done something
  lifecycle-manager trigger add ID...            keep the agent alive until the trigger is removed
  lifecycle-manager trigger remove ID...
  lifecycle-manager trigger set [ID...]          these triggers of the owner and no others
  lifecycle-manager lease ID --ttl 5m [-- COMMAND...]   keep it alive for a time, or while COMMAND runs
  lifecycle-manager snooze 10m                   put the stop off, within the policy's bound
  lifecycle-manager status [-o json]             what keeps the agent alive, and when it stops
  lifecycle-manager events                       what happens, as it happens
  lifecycle-manager version

The manager is found by its socket: --run-dir, or LIFECYCLE_RUN_DIR, or /var/run/agent. Exit codes: 0 done, 1 refused or not
reached, 2 not understood; of exec, the agent's own, 42 if it was idle, and 0 after SIGTERM.
Triggers and leases belong to the owner that --owner or LIFECYCLE_OWNER names; all calls without one share an owner.
No call changes what another owner holds. A trigger stays until it is removed, a lease until it ends; each "lease ID -- COMMAND"
has an owner of its own.
Each command explains its flags with --help.
`

func main() {
	code, err := command(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case errors.As(err, new(usageError)):
		fmt.Fprintf(os.Stderr, "lifecycle-manager: %v; see lifecycle-manager --help\n", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "lifecycle-manager:", terminal.PrintableLines(err.Error()))
		os.Exit(1)
	}
	os.Exit(code)
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

func command(args []string, stdout io.Writer) (code int, err error) {
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		_, err := io.WriteString(stdout, usage)
		return 0, err
	}
	ctx, stop := context.Background(), func() {}
	if args[0] != "exec" && args[0] != "lease" { // these have children to care for
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	}
	defer stop()
	verb, rest := args[0], args[1:]
	switch verb {
	case "exec":
		return execute(rest, stdout)
	case "lease":
		return lease(ctx, rest, stdout)
	case "activity":
		return 0, activity(ctx, rest, stdout)
	case "trigger":
		return 0, trigger(ctx, rest, stdout)
	case "snooze":
		return 0, snooze(ctx, rest, stdout)
	case "status":
		return 0, status(ctx, rest, stdout)
	case "events":
		return 0, events(ctx, rest, stdout)
	case "version":
		_, err := fmt.Fprintln(stdout, version)
		return 0, err
	}
	return 0, usagef("%q is no command", verb)
}

// requestTimeout bounds a request to the manager.
const requestTimeout = 10 * time.Second

// flagSet is what a command parses its flags with; each knows where the manager is.
func flagSet(name string, runDir *string) *flag.FlagSet {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(runDir, "run-dir", defaultRunDir(), "directory of the manager's socket and the agent's exit code; programs that are started here are told")
	return set
}

// envOwner is the owner where no flag names one.
const envOwner = "LIFECYCLE_OWNER"

// ownerFlag adds to the flags of what is about triggers or leases.
func ownerFlag(set *flag.FlagSet, owner *string) {
	set.StringVar(owner, "owner", os.Getenv(envOwner), "whose triggers and leases these are; empty: of all who name no owner")
}

// parse reads flags before and after the arguments, up to --. It returns the arguments, and what follows --.
func parse(set *flag.FlagSet, args []string, stdout io.Writer) (words, command []string, err error) {
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], args[i+1:]
	}
	for {
		if err := set.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fmt.Fprintf(stdout, "Flags of %s:\n", set.Name())
				set.SetOutput(stdout)
				set.PrintDefaults()
				return nil, nil, err
			}
			return nil, nil, usageError{err}
		}
		if set.NArg() == 0 {
			return words, command, nil
		}
		words, args = append(words, set.Arg(0)), set.Args()[1:]
	}
}

func activity(ctx context.Context, args []string, stdout io.Writer) error {
	var runDir, source string
	set := flagSet("activity", &runDir)
	set.StringVar(&source, "source", "shell", "what was done, for people")
	if words, _, err := parse(set, args, stdout); err != nil || len(words) > 0 {
		return errors.Join(err, unexpected(words))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return idle.NewClient(socket(runDir)).RecordActivity(ctx, source)
}

func trigger(ctx context.Context, args []string, stdout io.Writer) error {
	var runDir, owner, reason string
	set := flagSet("trigger", &runDir)
	ownerFlag(set, &owner)
	set.StringVar(&reason, "reason", "", "why, for people (add)")
	words, _, err := parse(set, args, stdout)
	if err != nil {
		return err
	}
	if len(words) == 0 {
		return usagef("trigger: say add, remove or set")
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client := idle.NewClient(socket(runDir)).ForOwner(owner)
	verb, ids := words[0], words[1:]
	var each func(id string) error
	switch verb {
	case "set":
		return client.UpdateTriggers(ctx, ids...)
	case "add":
		each = func(id string) error { return client.AddTrigger(ctx, id, reason) }
	case "remove":
		each = func(id string) error { return client.RemoveTrigger(ctx, id) }
	default:
		return usagef("trigger %q: say add, remove or set", verb)
	}
	if len(ids) == 0 {
		return usagef("trigger %s: which?", verb)
	}
	for _, id := range ids {
		if err := each(id); err != nil {
			return err
		}
	}
	return nil
}

func snooze(ctx context.Context, args []string, stdout io.Writer) error {
	var runDir string
	words, _, err := parse(flagSet("snooze", &runDir), args, stdout)
	if err != nil {
		return err
	}
	if len(words) != 1 {
		return usagef("snooze: for how long? Such as 10m")
	}
	d, err := time.ParseDuration(words[0])
	if err != nil || d <= 0 {
		return usagef("snooze %q: accepted is a duration such as 90s or 10m", words[0])
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	deadline, granted, err := idle.NewClient(socket(runDir)).Snooze(ctx, d)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "snoozed for %s; stops at %s\n", granted.Round(time.Second), deadline.Local().Format(time.RFC3339))
	return err
}

func status(ctx context.Context, args []string, stdout io.Writer) error {
	var runDir, output string
	set := flagSet("status", &runDir)
	set.StringVar(&output, "o", "text", "text or json")
	if words, _, err := parse(set, args, stdout); err != nil || len(words) > 0 {
		return errors.Join(err, unexpected(words))
	}
	if output != "text" && output != "json" {
		return usagef("-o %q: accepted are text and json", output)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	s, err := idle.NewClient(socket(runDir)).Status(ctx)
	if err != nil {
		return err
	}
	if output == "json" {
		encoded, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\n", terminal.PrintableJSON(encoded))
		return err
	}
	return printStatus(stdout, &s)
}

// printStatus writes a status for people. What is in it the agent chooses, down to the program at the other end of the socket.
func printStatus(to io.Writer, s *idle.Status) error {
	var b strings.Builder
	shown := terminal.Printable
	fmt.Fprintf(&b, "%s since %s\n", shown(string(s.State)), s.Since.Local().Format(time.RFC3339))
	fmt.Fprintf(&b, "last activity: %s, %s\n", shown(s.LastActivity.Source), s.LastActivity.At.Local().Format(time.RFC3339))
	if s.Deadline != nil {
		fmt.Fprintf(&b, "stops at %s unless something happens\n", s.Deadline.Local().Format(time.RFC3339))
	}
	for _, k := range s.KeptAliveBy {
		fmt.Fprintf(&b, "kept alive by %s", shown(k.Kind))
		if k.ID != "" {
			fmt.Fprintf(&b, " %s", shown(k.ID))
		}
		if k.Owner != "" {
			fmt.Fprintf(&b, " of %s", shown(k.Owner))
		}
		if k.Reason != "" {
			fmt.Fprintf(&b, " (%s)", shown(k.Reason))
		}
		fmt.Fprintf(&b, " since %s", k.Since.Local().Format(time.RFC3339))
		if k.Until != nil {
			fmt.Fprintf(&b, " until %s", k.Until.Local().Format(time.RFC3339))
		}
		b.WriteByte('\n')
	}
	_, err := io.WriteString(to, b.String())
	return err
}

func events(ctx context.Context, args []string, stdout io.Writer) error {
	var runDir string
	if words, _, err := parse(flagSet("events", &runDir), args, stdout); err != nil || len(words) > 0 {
		return errors.Join(err, unexpected(words))
	}
	err := idle.NewClient(socket(runDir)).Events(ctx, terminal.NewWriter(stdout))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func unexpected(words []string) error {
	if len(words) == 0 {
		return nil
	}
	return usagef("unexpected argument %q", words[0])
}
