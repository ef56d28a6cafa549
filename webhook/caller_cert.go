package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// ClientCA is the certificate authority of the clients that may ask for admission: the file of --client-ca. It follows the
// file, and keeps the last good one.
type ClientCA struct {
	path string
	log  *slog.Logger
	pool atomic.Pointer[x509.CertPool]
	last []byte
}

// clientCAInterval is how often the file is read: a new authority is announced long before certificates are from it.
const clientCAInterval = 30 * time.Second

// LoadClientCA reads certificates in PEM. The error says what is wrong with the file.
func LoadClientCA(path string, log *slog.Logger) (*ClientCA, error) {
	c := &ClientCA{path: path, log: log}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *ClientCA) load() error {
	data, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	if string(data) == string(c.last) {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return fmt.Errorf("%s: no certificate in it; accepted are certificates in PEM", c.path)
	}
	c.pool.Store(pool)
	c.last = data
	return nil
}

// Run follows the file until ctx ends.
func (c *ClientCA) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(clientCAInterval):
		}
		if err := c.load(); err != nil {
			c.log.WarnContext(ctx, "The client CA cannot be read; the last good one stays in force", "error", err)
		}
	}
}

// Callers, as the metric names them.
const (
	callerProven   = "proven"
	callerUnproven = "unproven"
	callerRefused  = "refused"
)

// callers tells who sends requests: counted by kind, logged by address.
type callers struct {
	// ca is nil where clients need no certificate.
	ca      *ClientCA
	metrics *Metrics
	log     *slog.Logger
	now     func() time.Time

	mu     sync.Mutex
	logged map[string]time.Time
}

const (
	// logCallerEvery is how often one address is logged, maxLogged how many addresses within that time.
	logCallerEvery = time.Minute
	maxLogged      = 64
)

var errNoCertificate = errors.New("a client certificate is required here: the API server has one by its AdmissionConfiguration")

// config adds to a server's TLS configuration that clients may show a certificate, which then has to be good.
func (c *callers) config(server *tls.Config) *tls.Config {
	if c.ca == nil {
		return server
	}
	asking := server.Clone()
	asking.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		config := server.Clone()
		config.ClientAuth, config.ClientCAs = tls.VerifyClientCertIfGiven, c.ca.pool.Load()
		config.NextProtos = []string{"h2", "http/1.1"}
		// A ticket would prove its client by an authority that may not be in force any more.
		config.SessionTicketsDisabled = true
		return config, nil
	}
	return asking
}

// wrap refuses, before anything of its body is read, a request whose client has no certificate although it needs one.
func (c *callers) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := callerUnproven
		switch {
		case c.ca == nil:
		case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
			who = callerProven
		default:
			who = callerRefused
		}
		c.metrics.callers.WithLabelValues(who).Inc()
		c.note(r, who)
		if who == callerRefused {
			leaveUnread(w, r)
			http.Error(w, errNoCertificate.Error(), http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// note logs an address, not too often and not too many.
func (c *callers) note(r *http.Request, who string) {
	source, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		source = r.RemoteAddr
	}
	if !c.due(who + " " + source) {
		return
	}
	c.log.InfoContext(r.Context(), "Admission is asked for", "source", source, "caller", who)
}

func (c *callers) due(key string) bool {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.logged[key]; ok && now.Sub(last) < logCallerEvery {
		return false
	}
	if len(c.logged) >= maxLogged {
		for k, last := range c.logged {
			if now.Sub(last) >= logCallerEvery {
				delete(c.logged, k)
			}
		}
		if len(c.logged) >= maxLogged {
			return false
		}
	}
	if c.logged == nil {
		c.logged = map[string]time.Time{}
	}
	c.logged[key] = now
	return true
}
