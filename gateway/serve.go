package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// serve answers until ctx or failed ends. Then it goes on for a while, since clients learn late that they should go elsewhere; ends
// the streams of events, which would never end; waits for what is under way; and cuts off what is left.
func (g *Gateway) serve(ctx, failed context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler: g.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ConnState: g.strangers.watch, ConnContext: g.strangers.remember,
		ErrorLog: slog.NewLogLogger(g.options.Logger.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		time.Sleep(g.options.Drain)
	case <-failed.Done():
	}
	close(g.draining)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), g.options.Grace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		g.options.Logger.Warn("Connections were cut off", "after", g.options.Grace, "error", err)
		_ = server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
