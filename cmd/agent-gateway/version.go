package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set when a release is linked, with -X main.version=v1.2.3.
var version string

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

func versionCommand(args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 {
		fmt.Fprintf(stderr, "agent-gateway version: takes no arguments, got %q\n", args)
		return errUsage
	}
	_, err := fmt.Fprintf(stdout, "agent-gateway %s %s %s/%s\n", programVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
