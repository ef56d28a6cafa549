// Command lifecycle-webhook is the admission server for agents: it injects their lifecycle and enforces the policy. It is also the
// reaper, beside the server or by itself.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/dexorder/agent-lifecycle/internal/program"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
	exitCap   = 3
)

// errCap stands for a pass of the reaper that deleted nothing, because it would have deleted too much.
var errCap = errors.New("more than the policy's reaper.cap would have been deleted, so that nothing of that kind was")

func main() {
	program.LimitMemory()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `lifecycle-webhook is the admission server for agents.

Usage:

  lifecycle-webhook serve --policy FILE [flags]   answer the API server; serve --help lists the flags
  lifecycle-webhook reap --policy FILE [flags]    clean up what agents leave behind; reap --help lists the flags
  lifecycle-webhook version                       print the version
  lifecycle-webhook help                          print this

Flags are about plumbing. What is injected and enforced is said by the policy file, and that is followed while the
server runs.
`

// run is the program without its process: it returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitUsage
	}
	var err error
	switch command, rest := args[0], args[1:]; command {
	case "serve":
		err = serveCommand(rest, stdout, stderr)
	case "reap":
		err = reapCommand(rest, stdout, stderr)
	case "version":
		err = versionCommand(rest, stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprintf(stderr, "lifecycle-webhook: %q is no command; there are serve, reap, version and help\n", command)
		return exitUsage
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, program.ErrUsage):
		return exitUsage
	}
	fmt.Fprintf(stderr, "lifecycle-webhook: %v\n", err)
	if errors.Is(err, errCap) {
		return exitCap
	}
	return exitError
}
