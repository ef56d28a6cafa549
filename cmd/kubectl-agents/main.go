// Command kubectl-agents is a kubectl plugin, used as "kubectl agents VERB". Its verbs check and inject tell without
// a cluster what the lifecycle webhook would say of a manifest and make of it; audit says that of the agents that run
// in one, adopt and upgrade bring them what is injected today, list shows them, and status one; provision and
// deprovision look after the namespaces of role agents, api-server says to the network policies of user agents where
// that is, breaker looks after the circuit breaker, restore brings back what was reaped, and discard gives that up.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/internal/terminal"
)

// Exit codes.
const (
	exitOK            = 0
	exitDenied        = 1
	exitNotUnderstood = 2
)

func main() {
	os.Exit(run(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
}

// streams are where a verb reads and writes.
type streams struct {
	in  io.Reader
	out io.Writer
	err io.Writer
}

// forPeople returns streams whose output is safe to show. Names, reasons and annotations in it are chosen by agents and tenants, who
// could hide escape sequences for the operator's terminal in them.
func (s streams) forPeople() streams {
	s.out = terminal.NewWriter(s.out)
	return s
}

func (s streams) fail(format string, args ...any) {
	fmt.Fprintf(s.err, "error: "+format+"\n", args...)
}

// verb is one thing the plugin does.
type verb struct {
	name    string
	summary string

	// help is what follows the summary in the verb's help, with examples.
	help string

	// actions are the words of which the verb takes one. Without any it takes none.
	actions []string

	// usual is the action of a verb that was given none; empty if one must be given.
	usual string

	// argument is what the verb may be given one of, in capitals.
	argument string

	// bind declares the verb's flags and returns what runs it once they are read. It returns an exit code.
	bind func(*pflag.FlagSet) func(streams) int
}

// verbs in the order of the help.
var verbs = []verb{
	checkVerb, injectVerb, auditVerb, adoptVerb, upgradeVerb, listVerb, statusVerb, provisionVerb, deprovisionVerb, apiServerVerb,
	breakerVerb, restoreVerb, discardVerb, versionVerb,
}

const overview = `See what the agent lifecycle webhook would say of manifests, and make of them, without a cluster; audit, adopt, upgrade and list the
agents of one, look after the namespaces of role agents there and after its circuit breaker, and bring back or give up what was reaped.

Usage:
  kubectl agents VERB [flags]

Verbs:
`

func run(args []string, s streams) int {
	s.err = terminal.NewWriter(s.err)
	name, rest := "", args
	if len(args) > 0 {
		name, rest = args[0], args[1:]
	}
	switch name {
	case "help":
		if len(rest) > 0 {
			return run([]string{rest[0], "--help"}, s)
		}
		writeOverview(s.out)
		return exitOK
	case "-h", "--help":
		writeOverview(s.out)
		return exitOK
	case "":
		writeOverview(s.err)
		return exitNotUnderstood
	}
	for _, v := range verbs {
		if v.name == name {
			return v.run(rest, s)
		}
	}
	s.fail("%q is not a verb; accepted: %s, help", name, strings.Join(verbNames(), ", "))
	return exitNotUnderstood
}

func (v verb) run(args []string, s streams) int {
	flags := pflag.NewFlagSet(v.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // Errors are told below, once.
	flags.Usage = func() {}
	flags.SortFlags = false
	do := v.bind(flags)
	switch err := flags.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		v.writeHelp(s.out, flags)
		return exitOK
	case err != nil:
		s.fail("%v; see kubectl agents %s --help", err, v.name)
		return exitNotUnderstood
	case len(v.actions) > 0 && !v.takes(flags.Args()):
		s.fail("kubectl agents %s: say which; accepted: %s", v.name, strings.Join(v.actions, ", "))
		return exitNotUnderstood
	case v.argument != "" && flags.NArg() > 1:
		s.fail("kubectl agents %s: %q is one too many; accepted is one %s", v.name, flags.Arg(1), v.argument)
		return exitNotUnderstood
	case len(v.actions) == 0 && v.argument == "" && flags.NArg() > 0:
		s.fail("%q is not a flag; see kubectl agents %s --help", flags.Arg(0), v.name)
		return exitNotUnderstood
	}
	return do(s)
}

// takes says whether the words after a verb with actions are one of these, or none where it has a usual one.
func (v verb) takes(words []string) bool {
	if len(words) == 0 {
		return v.usual != ""
	}
	return len(words) == 1 && slices.Contains(v.actions, words[0])
}

func writeOverview(w io.Writer) {
	fmt.Fprint(w, overview)
	for _, v := range verbs {
		fmt.Fprintf(w, "  %-11s %s\n", v.name, v.summary)
	}
	fmt.Fprint(w, "  help        show this, or a verb's help\n")
}

func (v verb) writeHelp(w io.Writer, flags *pflag.FlagSet) {
	fmt.Fprintf(w, "%s%s.\n\nUsage:\n  kubectl agents %s%s [flags]\n", strings.ToUpper(v.summary[:1]), v.summary[1:], v.name, v.choice())
	if v.help != "" {
		fmt.Fprint(w, "\n"+v.help)
	}
	if usages := flags.FlagUsagesWrapped(100); usages != "" {
		fmt.Fprintf(w, "\nFlags:\n%s", usages)
	}
}

// choice shows the actions or the argument in the usage.
func (v verb) choice() string {
	if v.argument != "" {
		return " [" + v.argument + "]"
	}
	if len(v.actions) == 0 {
		return ""
	}
	choice := strings.Join(v.actions, "|")
	if v.usual != "" {
		choice = "[" + choice + "]"
	}
	return " " + choice
}

func verbNames() []string {
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = v.name
	}
	return names
}
