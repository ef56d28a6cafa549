package main

import (
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// detail lowers the libraries' logs to slog's debug level: logr's levels count up where slog's count down.
const detail = -int(slog.LevelDebug)

// newLogger returns the program's logger, to which it also brings what the Kubernetes libraries log.
func newLogger(f *logging, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if f.logFormat == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	// What the libraries call information is detail here, and what they call detail would bury the server's own words.
	libraries := logr.FromSlogHandler(handler).V(detail)
	klog.SetLogger(libraries)
	ctrllog.SetLogger(libraries)
	return slog.New(handler)
}
