package program

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Version is the release that was linked into the program, as with -X main.version=v1.2.3; else what the Go tool knows of the source that
// was built; else "unknown".
func Version(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}

// PrintVersion prints the version of the program of that name, and what it was built with and for.
func PrintVersion(w io.Writer, name, linked string) error {
	_, err := fmt.Fprintf(w, "%s %s %s %s/%s\n", name, Version(linked), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
