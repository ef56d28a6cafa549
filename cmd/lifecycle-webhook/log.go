package main

import (
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
)

// newLogger returns the program's logger, to which it also brings what the Kubernetes libraries log.
func newLogger(f *flags, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.logLevel}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if f.logFormat == "text" {
		handler = slog.NewTextHandler(w, options)
	}
	klog.SetLogger(logr.FromSlogHandler(handler))
	ctrllog.SetLogger(logr.FromSlogHandler(handler))
	return slog.New(handler)
}
