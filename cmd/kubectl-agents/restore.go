package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dexorder/agent-lifecycle/archive"
	"github.com/dexorder/agent-lifecycle/lifecycle"
)

const restoreHelp = `Where the policy says reaper.namespaces.retain, the objects of a namespace that is reaped and the volumes of its claims
are kept for that time. Without a name the archives are listed. NAMESPACE may be an archive's name as well, to bring
back another one than the newest.

It is safe to run it again: what exists stays as it is. Values of Secrets are kept only where the policy says
retainSecrets: else the Secrets and their keys are named, and you create them.

What the archive does not hold, such as custom resources, is named on the standard error, and does not change the exit code. What it
holds and what could not be brought back is named there, too.

A namespace that was deprovisioned comes back deprovisioned and stopped: kubectl agents deprovision --undo NAMESPACE starts it.

  kubectl agents restore                      list the archives
  kubectl agents restore agent-ceo --dry-run  say what would be brought back
  kubectl agents restore agent-ceo            exit 0: all that the archive holds is back, 1: refused, or something is left to do,
                                              2: could not be found out
`

var restoreVerb = verb{
	name:     "restore",
	summary:  "bring back a role agent's namespace that was reaped",
	help:     restoreHelp,
	argument: "NAMESPACE",
	bind: func(flags *pflag.FlagSet) func(streams) int {
		r := &restoreFlags{}
		r.clusterFlags.bind(flags)
		flags.BoolVar(&r.dryRun, "dry-run", false, "say what would be done, and do nothing")
		flags.DurationVar(&r.timeout, "timeout", 5*time.Minute, "how long all of it may take")
		return func(s streams) int { return r.run(s, flags.Arg(0)) }
	},
}

type restoreFlags struct {
	clusterFlags
	dryRun  bool
	timeout time.Duration
}

func (r *restoreFlags) run(s streams, name string) int {
	s = s.forPeople()
	if r.timeout <= 0 {
		s.fail("--timeout %s: accepted is a positive duration, such as 5m", r.timeout)
		return exitNotUnderstood
	}
	a, err := r.archive(s)
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	ctx, stop := untilInterrupted()
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if name == "" {
		return listArchives(ctx, s, a)
	}
	restored, err := a.Restore(ctx, name, archive.RestoreOptions{DryRun: r.dryRun})
	if restored != nil {
		printRestored(s.out, restored, r.dryRun)
		printLeftOut(s.err, restored)
		r.printFate(ctx, s.out, restored)
	}
	switch {
	case errors.Is(err, archive.ErrRefused):
		s.fail("%v", err)
		return exitDenied
	case err != nil:
		s.fail("%v", err)
		return exitNotUnderstood
	case !restored.Complete():
		printNotRestored(s.err, restored, r.dryRun)
		return exitDenied
	}
	return exitOK
}

// printLeftOut names what the namespace had and the archive does not hold, kinds of which nothing is known in one line.
func printLeftOut(w io.Writer, restored *archive.Restored) {
	if !restored.Archive.LeftOutNoted {
		fmt.Fprintln(w, "The archive was made by an older version, which did not note what it left out: custom resources and other kinds, and what had a controller.")
	}
	unknown := map[string][]string{}
	begun := false
	for _, l := range restored.LeftOut {
		if l.Name == "" {
			unknown[l.Reason] = append(unknown[l.Reason], l.Kind)
			continue
		}
		if !begun {
			fmt.Fprintln(w, "The archive does not hold, and this does not bring back:")
			begun = true
		}
		fmt.Fprintf(w, "  %s\n", l)
	}
	if len(unknown) == 0 {
		return
	}
	fmt.Fprintln(w, "The namespace may also have had objects of these kinds, which the archive does not hold:")
	for _, reason := range slices.Sorted(maps.Keys(unknown)) {
		fmt.Fprintf(w, "  %s: %s\n", strings.Join(unknown[reason], ", "), reason)
	}
}

// printNotRestored names what the archive holds and what is not back, where a script reads no table.
func printNotRestored(w io.Writer, restored *archive.Restored, dryRun bool) {
	says := "not restored"
	if dryRun {
		says = "would not be restored"
	}
	for _, result := range restored.Missing() {
		fmt.Fprintf(w, "error: %s: %s/%s: %s: %s", says, strings.ToLower(result.Kind), result.Name, result.Outcome, result.Detail)
		if len(result.Keys) > 0 {
			fmt.Fprintf(w, ": %s", strings.Join(result.Keys, ", "))
		}
		fmt.Fprintln(w)
	}
}

// archive connects to the cluster.
func (c *clusterFlags) archive(s streams) (*archive.Archive, error) {
	config, err := c.config()
	if err != nil {
		return nil, err
	}
	// A namespace has many objects, and nobody else waits for this process.
	config.QPS, config.Burst = 50, 100
	config.WarningHandler = rest.NewWarningWriter(s.err, rest.WarningWriterOptions{Deduplicate: true})
	clients, err := archive.ClientsFor(config)
	if err != nil {
		return nil, err
	}
	return archive.New(archive.Options{
		Clients: clients, Namespace: c.namespace, Now: time.Now, Logger: slog.New(slog.NewTextHandler(s.err, nil)),
	}), nil
}

// printFate says that what was reaped is idle, and goes again unless somebody has it run.
func (r *restoreFlags) printFate(ctx context.Context, w io.Writer, restored *archive.Restored) {
	if restored.Labels == nil {
		return // it is not there
	}
	name := restored.Archive.Namespace
	p, err := r.policyInForce(ctx)
	again := fateOf(p, err, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: restored.Labels, Annotations: restored.Annotations,
	}}, true, time.Now()).when("deletes it again")
	if mark, has := restored.Annotations[lifecycle.AnnotationDeprovisioned]; has {
		fmt.Fprintf(w, "It is still deprovisioned (%s), and what ran there is stopped. Start it with: kubectl agents deprovision --undo %s\n", mark, name)
		fmt.Fprintf(w, "Else: %s\n", again)
		return
	}
	fmt.Fprintf(w, "Unless something runs there: %s To keep it as it is: kubectl annotate namespace %s %s=true\n", again, name, lifecycle.AnnotationDoNotReap)
}

func listArchives(ctx context.Context, s streams, a *archive.Archive) int {
	infos, err := a.List(ctx)
	if len(infos) > 0 {
		w := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(w, "NAMESPACE\tREAPED AT\tKEPT UNTIL\tOBJECTS\tVOLUMES\tLEFT OUT\tSECRET VALUES\tARCHIVE")
		for i := range infos {
			info := &infos[i]
			values := "left out"
			if info.SecretValues {
				values = "kept"
			}
			leftOut := "not noted"
			if info.LeftOutNoted {
				leftOut = strconv.Itoa(info.LeftOut)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", info.Namespace, info.SavedAt.Local().Format(time.RFC3339),
				info.KeptUntil.Local().Format(time.RFC3339), info.Objects, info.Volumes, leftOut, values, info.Name)
		}
		_ = w.Flush()
	}
	if err != nil {
		s.fail("%v", err)
		return exitNotUnderstood
	}
	if len(infos) == 0 {
		fmt.Fprintln(s.out, "nothing is kept")
	}
	return exitOK
}

// printRestored says for each object what became of it, and then what there is left to do.
func printRestored(w io.Writer, restored *archive.Restored, dryRun bool) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, result := range restored.Results {
		outcome := string(result.Outcome)
		if dryRun && result.Outcome == archive.Created {
			outcome = "would be created"
		}
		fmt.Fprintf(table, "%s\t%s/%s", outcome, strings.ToLower(result.Kind), result.Name)
		if result.Detail != "" {
			fmt.Fprintf(table, "\t%s", result.Detail)
		}
		if len(result.Keys) > 0 {
			fmt.Fprintf(table, ": %s", strings.Join(result.Keys, ", "))
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush()
	switch {
	case restored.Complete():
	case dryRun:
		fmt.Fprintln(w, "Something would be left for you to do: see the lines that say neither would be created nor exists.")
	default:
		fmt.Fprintln(w, "Something is left for you to do: see the lines that say neither created nor exists. Then run this again.")
	}
}
