package program

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dexorder/agent-lifecycle/internal/connections"
)

// maxHealthConnections bounds the connections of a listener of health and metrics. It has few clients, and a probe must
// not be the oldest of them before it has its answer.
const maxHealthConnections = 1024

// Health answers /healthz, /readyz and /metrics, on plain HTTP.
type Health struct {
	Listener net.Listener
	Gatherer prometheus.Gatherer

	// Ready says why the program is not ready, nil if it is. Without it the program is ready as soon as it runs.
	Ready func() error
}

// Run implements Component.
func (h Health) Run(ctx context.Context) error {
	ok := func(w http.ResponseWriter) { _, _ = io.WriteString(w, "ok\n") }
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { ok(w) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if h.Ready != nil {
			if err := h.Ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		ok(w)
	})
	mux.Handle("/metrics", promhttp.HandlerFor(h.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}
	limit := connections.Limit{MaxUnanswered: maxHealthConnections, MaxAnswered: maxHealthConnections}
	limit.Attach(server)
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(h.Listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("--health-listen: %w", err)
	}
	return nil
}
