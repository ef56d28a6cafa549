package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute

	// endTimeout is for what ends when the connections have been cut: their handlers, and the last calls that tell agents
	// of their use.
	endTimeout = 2 * time.Second

	// endInterval is how often it is looked whether something has ended.
	endInterval = 20 * time.Millisecond
)

// serve answers until ctx or failed ends. Then it goes on for a while, since clients learn late that they should go elsewhere; ends
// the streams of events, which would never end; waits for what is under way, connections that were taken over included; and cuts off
// what is left.
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
	err := server.Shutdown(grace)
	if err == nil { // it does not know the connections that were taken over
		err = untilZero(grace, &g.delivering)
	}
	if err != nil {
		g.options.Logger.Warn("Connections were cut off", "after", g.options.Grace, "connections", g.delivering.Load(), "error", err)
		g.cut()
		_ = server.Close()
	}
	ended, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancelEnd()
	if err := errors.Join(untilZero(ended, &g.delivering), untilZero(ended, &g.uses.telling)); err != nil {
		g.options.Logger.Info("Some agents were not told that their use is over", "error", err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// untilZero waits until a count is zero. The error is that of ctx, which ended before.
func untilZero(ctx context.Context, count *atomic.Int64) error {
	tick := time.NewTicker(endInterval)
	defer tick.Stop()
	for count.Load() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
