package main

import (
	"fmt"
	"io"

	"github.com/dexorder/agent-lifecycle/internal/program"
)

// version is set when a release is linked, with -X main.version=v1.2.3.
var version string

func versionCommand(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		fmt.Fprintf(stderr, "lifecycle-webhook version: takes no arguments, got %q\n", args)
		return program.ErrUsage
	}
	return program.PrintVersion(stdout, "lifecycle-webhook", version)
}
