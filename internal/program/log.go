package program

import (
	"flag"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// detail lowers the libraries' logs to slog's debug level: logr's levels count up where slog's count down.
const detail = -int(slog.LevelDebug)

// Log says how the program logs. It is part of a CommandLine.
type Log struct {
	Level  slog.Level
	Format string // "json" or "text"
}

// Define defines --log-level and --log-format.
func (l *Log) Define(set *flag.FlagSet) {
	set.TextVar(&l.Level, "log-level", slog.LevelInfo, "least `level` to log: debug, info, warn or error")
	set.StringVar(&l.Format, "log-format", "json", "`format` of the log: json or text")
}

// Check returns what is wrong with them.
func (l *Log) Check() []error {
	if l.Format != "json" && l.Format != "text" {
		return []error{fmt.Errorf("--log-format %q: there are json and text", l.Format)}
	}
	return nil
}

// NewLogger returns the program's logger, to which it also brings what the Kubernetes libraries log.
func (l *Log) NewLogger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: l.Level}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if l.Format == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	// What the libraries call information is detail here, and what they call detail would bury the program's own words.
	libraries := logr.FromSlogHandler(handler).V(detail)
	klog.SetLogger(libraries)
	ctrllog.SetLogger(libraries)
	return slog.New(handler)
}
