// Command agent-gateway makes users' agents on demand, brings them back and connects users with them.
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
)

func main() {
	program.LimitMemory()
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

const usage = `agent-gateway makes users' agents on demand, brings them back and connects users with them.

Usage:

  agent-gateway serve --policy FILE --template FILE [flags]   serve; serve --help lists the flags
  agent-gateway version                                       print the version
  agent-gateway help                                          print this
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
	case "version":
		err = versionCommand(rest, stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
	default:
		fmt.Fprintf(stderr, "agent-gateway: %q is no command; there are serve, version and help\n", command)
		return exitUsage
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, program.ErrUsage):
		return exitUsage
	}
	fmt.Fprintf(stderr, "agent-gateway: %v\n", err)
	return exitError
}
