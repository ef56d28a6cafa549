package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

// version is set when a release is linked, with -X main.version=v1.2.3.
var version string

var versionVerb = verb{
	name:    "version",
	summary: "print the plugin's version",
	bind: func(*pflag.FlagSet) func(streams) int {
		return func(s streams) int {
			fmt.Fprintf(s.out, "kubectl-agents %s %s %s/%s\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return exitOK
		}
	},
}

// programVersion is the release, else what the Go tool knows of the source that was built.
func programVersion() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
