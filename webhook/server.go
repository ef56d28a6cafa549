package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dexorder/agent-lifecycle/internal/connections"
)

const (
	// DefaultMaxBody is how large a request may be, in bytes. An object of 3 MB, the most that the API server takes, comes
	// twice in an update, and quoting may make it longer.
	DefaultMaxBody = 8 << 20

	// DefaultMaxInFlight is how many requests of up to 128 KiB are answered at once; larger ones count for several.
	DefaultMaxInFlight = 128

	// DefaultDrainDelay is how long a server that is about to stop still takes new connections: until every node has
	// learned that it is unready.
	DefaultDrainDelay = 5 * time.Second
)

// Timeouts of connections. The server outlives the 90 s for which the API server keeps an idle one, so that it is never
// the server that closes it just as it is used again.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 15 * time.Second
	writeTimeout      = maxTimeout + 5*time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 16 << 10
)

const (
	// maxUnanswered bounds the connections on which no request has been answered yet, maxAnswered the others. API servers
	// have some hundreds of the latter at most, with HTTP/1.1.
	maxUnanswered = 1024
	maxAnswered   = 1024

	// maxHealth bounds those of the listener of health and metrics. It has few clients, and a probe must not be the oldest of
	// them before it has its answer.
	maxHealth = 1024
)

// Options configures a Server.
type Options struct {
	// Admission answers. Required.
	Admission *Admission

	// GetCertificate returns the certificate of a handshake. Required.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	// Checks decide on readiness, beside the server's own.
	Checks []Check

	// Gatherer of /metrics. Required.
	Gatherer prometheus.Gatherer

	// ClientCA is the authority of the clients that may ask for admission; nil: clients need no certificate.
	ClientCA *ClientCA

	// MaxBody and MaxInFlight: see the defaults, which zero stands for.
	MaxBody     int64
	MaxInFlight int

	// DrainDelay: see DefaultDrainDelay. Zero is none.
	DrainDelay time.Duration
}

func (o *Options) complete() error {
	if o.MaxBody == 0 {
		o.MaxBody = DefaultMaxBody
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = DefaultMaxInFlight
	}
	switch {
	case o.Admission == nil, o.GetCertificate == nil, o.Gatherer == nil:
		return errors.New("webhook server: Admission, GetCertificate and Gatherer are required")
	case o.MaxBody < 0:
		return fmt.Errorf("webhook server: MaxBody %d: must be positive", o.MaxBody)
	case o.MaxInFlight < 0:
		return fmt.Errorf("webhook server: MaxInFlight %d: must be positive", o.MaxInFlight)
	}
	return nil
}

// Server answers admission requests on TLS, and health and metrics beside it on plain HTTP.
type Server struct {
	options  Options
	log      *slog.Logger
	draining atomic.Bool
	drain    drainer
	callers  callers
}

// NewServer returns a Server that Run starts.
func NewServer(options Options) (*Server, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	logger, metrics := options.Admission.Logger, options.Admission.Metrics
	return &Server{
		options: options, log: logger,
		callers: callers{ca: options.ClientCA, metrics: metrics, log: logger, now: time.Now},
	}, nil
}

// Run serves on both listeners until ctx ends, and then stops so that no request is lost: it turns unready, keeps
// serving for the drain delay, sends its clients away connection by connection, and returns when the last answer is
// out. Whatever Admission needs must go on working until Run returns.
func (s *Server) Run(ctx context.Context, admission, health net.Listener) error {
	base := context.WithoutCancel(ctx)
	admissionServer := s.newHTTPServer(base, s.admissionHandler())
	admissionServer.TLSConfig = &tls.Config{GetCertificate: s.options.GetCertificate, MinVersion: tls.VersionTLS13}
	if err := s.drain.attach(admissionServer); err != nil {
		return err
	}
	admissionServer.TLSConfig = s.callers.config(admissionServer.TLSConfig)
	s.bound(admissionServer, maxUnanswered, maxAnswered)
	healthServer := s.newHTTPServer(base, s.healthHandler())
	s.bound(healthServer, maxHealth, maxHealth)
	failed := make(chan error, 2)
	serve := func(name string, run func() error) {
		if err := run(); !errors.Is(err, http.ErrServerClosed) {
			failed <- fmt.Errorf("%s listener: %w", name, err)
		}
	}
	go serve("admission", func() error { return admissionServer.ServeTLS(admission, "", "") })
	go serve("health", func() error { return healthServer.Serve(health) })
	s.log.InfoContext(ctx, "Serving", "admission", admission.Addr().String(), "health", health.Addr().String())
	defer healthServer.Close()
	select {
	case err := <-failed:
		return errors.Join(err, admissionServer.Close())
	case <-ctx.Done():
	}
	s.draining.Store(true)
	s.options.Admission.StopHolding()
	s.log.Info("Stopping: unready, and serving on until traffic has moved", "drainDelay", s.options.DrainDelay)
	select {
	case err := <-failed:
		return errors.Join(err, admissionServer.Close())
	case <-time.After(s.options.DrainDelay):
	}
	if err := s.drain.run(base, admissionServer); err != nil {
		return fmt.Errorf("stop the admission listener: %w", err)
	}
	s.log.Info("Stopped")
	return nil
}

func (s *Server) newHTTPServer(base context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		// Failed handshakes are worth seeing: an API server that does not trust the certificate is among them.
		ErrorLog: log.New(newLimitedLog(s.log), "", 0),
	}
}

// bound bounds how many connections a server has.
func (s *Server) bound(server *http.Server, unanswered, answered int) {
	limit := &connections.Limit{MaxUnanswered: unanswered, MaxAnswered: answered, Closed: func(reason string) {
		s.options.Admission.Metrics.connectionsClosed.WithLabelValues(reason).Inc()
	}}
	limit.Attach(server)
}

func (s *Server) admissionHandler() http.Handler {
	limiter, bodies := newLimiter(s.options.MaxInFlight), newBodies(s.options.MaxInFlight, s.options.MaxBody)
	mux := http.NewServeMux()
	handle := func(pattern string, h handler) {
		h.maxBody, h.bodies, h.limiter, h.metrics = s.options.MaxBody, bodies, limiter, s.options.Admission.Metrics
		mux.Handle(pattern, &h)
	}
	a := s.options.Admission
	handle("/mutate", handler{answer: a.Mutate, overload: overloaded, tooMuch: tooMuch})
	handle("/policy", handler{answer: a.ReviewPolicy, overload: overloaded, tooMuch: tooMuch})
	handle(policyPath, handler{answer: a.ReviewPolicy, overload: overloaded, tooMuch: tooMuch})
	handle("/stamp", handler{answer: a.Stamp, overload: unstamped, tooMuch: unstampedTooMuch})
	handle("/validate", handler{answer: a.Validate, overload: overloaded, tooMuch: tooMuch})
	return s.drain.wrap(s.callers.wrap(mux))
}

func (s *Server) healthHandler() http.Handler {
	checks := append([]Check{{Name: "stopping", Run: s.stopping}}, s.options.Checks...)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", healthz)
	mux.HandleFunc("GET /readyz", readyz(checks))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.options.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4}))
	return mux
}

func (s *Server) stopping() error {
	if s.draining.Load() {
		return errors.New("the server is stopping")
	}
	return nil
}
