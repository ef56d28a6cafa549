package main

import (
	"github.com/spf13/pflag"

	"github.com/dexorder/agent-lifecycle/internal/program"
)

// version is set when a release is linked, with -X main.version=v1.2.3.
var version string

var versionVerb = verb{
	name:    "version",
	summary: "print the plugin's version",
	bind: func(*pflag.FlagSet) func(streams) int {
		return func(s streams) int {
			_ = program.PrintVersion(s.out, "kubectl-agents", version)
			return exitOK
		}
	},
}
